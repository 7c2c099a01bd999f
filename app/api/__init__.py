"""The REST API: one file per resource."""

from __future__ import annotations

from fastapi import APIRouter, Depends

from app.api import apply, builds, deployments, events, figures, gateway, instances, logs, meta, registry, services, tokens
from app.api.parameters import strict_query

api = APIRouter(dependencies=[Depends(strict_query)])
for _room in (deployments, apply, builds, services, figures, instances, logs, events, tokens, gateway, registry, meta):
    api.include_router(_room.router)
