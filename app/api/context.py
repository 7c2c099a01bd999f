"""From a request to what the rollouts are asked: the running Sluice, who calls, and under which key."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi import Request
from fastapi.responses import Response
from pydantic_core import to_json
from sqlmodel import Session

from app.api.params import claim, registry_auth
from app.auth import Caller
from app.context import AppContext
from services.rollouts.requests.submit import RequestContext


def app_context(request: Request) -> AppContext:
    sluice: AppContext = request.app.state.sluice
    return sluice


async def show(request: Request, look: Callable[[Session], Any]) -> Response:
    """200 with what `look` finds in one read transaction. JSON is made in the reader's thread: the loop has others to
    answer."""
    return Response(
        await app_context(request).store.read(lambda session: to_json(look(session))), media_type="application/json"
    )


async def request_context(request: Request, caller: Caller, key: str | None, auth: str | None = None) -> RequestContext:
    """Problem 422 for an X-Registry-Auth that is none."""
    return RequestContext(caller.actor, await claim(request, caller, key), registry_auth(auth))
