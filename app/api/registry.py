"""The Eureka registry in the API: registrations, the consumer view, and the consumers' cache age."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from app.api import registry_schemas as schemas
from app.api.context import get_app_context
from app.api.examples import REGISTRY
from app.api.responses import ALWAYS, read_responses
from app.auth import Reader
from services.clock import rfc3339
from services.eureka.applications import Entry
from services.eureka.consumers import Consumer
from services.eureka.registry import Registry

router = APIRouter(tags=["registry"])


@router.get("/registry", responses=read_responses(200, schemas.Registry, REGISTRY, *ALWAYS))
async def state(request: Request, _reader: Reader) -> Response:
    """Show the applications registered at the Eureka port, the consumer view and the consumers."""
    return JSONResponse(view(get_app_context(request).registry))


def view(registry: Registry) -> dict[str, Any]:
    """Return the document of the registry as it is now: times in RFC 3339, ages in seconds."""
    now = registry.clock.now()
    direct, shown = registry.leases.applications.full().apps, registry.consumer_view.applications.full().apps
    return {
        "applications": [
            {
                "name": app,
                "service": registry.consumer_view.descriptions.get(app, (None,))[0],
                "registered": [
                    {
                        **_entry(entry),
                        "instance": owner.instance if (owner := registry.consumer_view.owners.get(entry.key)) else None,
                    }
                    for entry in direct.get(app, ())
                ],
                "shown": [_entry(entry) for entry in shown.get(app, ())],
            }
            for app in sorted({*direct, *shown})
        ],
        "consumers": [_consumer(consumer, now) for consumer in registry.consumers.present(now)],
    }


def _entry(entry: Entry) -> dict[str, Any]:
    said = entry.registration
    return {
        "id": said.id,
        "status": entry.status,
        "address": f"{said.ip}:{said.port.number}",
        "renewed_at": rfc3339(entry.renewed_at / 1000),
    }


def _consumer(consumer: Consumer, now: float) -> dict[str, Any]:
    return {
        "address": consumer.address,
        "identity": consumer.identity,
        "since": rfc3339(consumer.since),
        "fetched_at": rfc3339(consumer.fetched_at),
        "age": round(now - consumer.fetched_at, 3),
        "interval": round(consumer.interval, 3),
    }
