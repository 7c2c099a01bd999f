"""Request helpers: the application's parts, responses from the store, rollout request contexts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi import Request
from fastapi.responses import Response
from pydantic_core import to_json
from sqlmodel import Session

from app.api.idempotency import claim
from app.api.params import registry_auth
from app.auth import Caller
from app.context import AppContext
from services.rollouts.requests.command import RequestContext


def get_app_context(request: Request) -> AppContext:
    sluice: AppContext = request.app.state.sluice
    return sluice


async def show(request: Request, read: Callable[[Session], Any]) -> Response:
    """Respond 200 with the result of `read` in one read transaction.

    The JSON is encoded in the reader's thread, which keeps the event loop free for other requests.
    """
    return Response(
        await get_app_context(request).store.read(lambda session: to_json(read(session))), media_type="application/json"
    )


async def request_context(request: Request, caller: Caller, key: str | None, auth: str | None = None) -> RequestContext:
    """Return the caller, key and registry credentials of a request.

    Raises Problem (422) for an invalid X-Registry-Auth.
    """
    return RequestContext(caller.actor, await claim(request, caller, key), registry_auth(auth))
