"""The REST API: one file per resource."""

from __future__ import annotations

from fastapi import APIRouter, Depends

from app.api import deployments, events, gateway, instances, meta, services, tokens
from app.api.parameters import strict_query

api = APIRouter(dependencies=[Depends(strict_query)])
for _room in (deployments, services, instances, events, tokens, gateway, meta):
    api.include_router(_room.router)
