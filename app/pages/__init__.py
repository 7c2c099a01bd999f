"""The dashboard: pages that browsers see under /ui/."""

from __future__ import annotations

from fastapi import APIRouter

from app.pages import deployments, files, overview, reference, services, sign_in

pages = APIRouter(include_in_schema=False)
for _room in (files, sign_in, overview, services, deployments, reference):
    pages.include_router(_room.router)
