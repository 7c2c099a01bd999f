"""The dashboard: pages that browsers see under /ui/."""

from __future__ import annotations

from fastapi import APIRouter

from app.pages import (
    audit,
    builds,
    changing,
    comparing,
    creating,
    deployments,
    files,
    history,
    logs,
    overview,
    reference,
    registry,
    services,
    sign_in,
    tokens,
)

pages = APIRouter(include_in_schema=False)
for _room in (
    files,
    sign_in,
    overview,
    creating,
    services,
    logs,
    comparing,
    changing,
    deployments,
    builds,
    history,
    audit,
    tokens,
    registry,
    reference,
):
    pages.include_router(_room.router)
