"""From a request to what the rollouts are asked: the running Sluice, who calls, and under which key."""

from __future__ import annotations

from fastapi import Request

from app.api.parameters import claim, registry_auth
from app.auth import Caller
from app.sluice import Sluice
from services.rollouts.requests import Call


def sluice_of(request: Request) -> Sluice:
    sluice: Sluice = request.app.state.sluice
    return sluice


async def call_of(request: Request, caller: Caller, key: str | None, auth: str | None = None) -> Call:
    """Problem 422 for an X-Registry-Auth that is none."""
    return Call(caller.actor, await claim(request, caller, key), registry_auth(auth))
