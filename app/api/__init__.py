"""The REST API, one module per resource."""

from __future__ import annotations

from fastapi import APIRouter, Depends

from app.api import (
    apply,
    builds,
    deployments,
    events,
    gateway,
    instances,
    logs,
    meta,
    registry,
    services,
    tokens,
    traffic_metrics,
)
from app.api.params import strict_query

api = APIRouter(dependencies=[Depends(strict_query)])
for _module in (
    deployments,
    apply,
    builds,
    services,
    traffic_metrics,
    instances,
    logs,
    events,
    tokens,
    gateway,
    registry,
    meta,
):
    api.include_router(_module.router)
