"""The dashboard: pages that browsers see under /ui/."""

from __future__ import annotations

from fastapi import APIRouter

from app.pages import changing, comparing, deployments, figures, files, overview, reference, services, sign_in

pages = APIRouter(include_in_schema=False)
for _room in (files, sign_in, overview, services, comparing, figures, changing, deployments, reference):
    pages.include_router(_room.router)
