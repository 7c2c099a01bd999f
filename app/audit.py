"""Audit entries for refused changes: who tried what, and the reason for the refusal."""

from __future__ import annotations

import re
from typing import Any

import structlog
from fastapi import Request
from sqlalchemy.exc import OperationalError

from services.store.events import append_event
from services.text_forms import SERVICE_NAME

log = structlog.get_logger(__name__)
SAFE = frozenset({"GET", "HEAD", "OPTIONS"})


_OUTCOMES = frozenset(
    {"deployment_failed", "deployment_aborted", "deployment_superseded", "deployment_paused", "build_failed"}
)
"""Codes that report how a deployment or a build ended to the client that waits for it; not refusals."""


async def note_refusal(request: Request, status: int, code: str, detail: str) -> None:
    """Append an audit event if a changing request of an authenticated caller is refused with 4xx.

    A 5xx status is not recorded: such a request was delayed, not refused.
    """
    caller = getattr(request.state, "caller", None)
    if caller is None or request.method in SAFE or not 400 <= status < 500 or code in _OUTCOMES:
        return
    sluice = request.app.state.sluice
    name = getattr(request.state, "service", None) or request.path_params.get("name")
    service = name if isinstance(name, str) and re.fullmatch(SERVICE_NAME, name) else None
    path = request.url.path[:200].encode(errors="replace").decode()
    fields: dict[str, Any] = {
        "service": service,
        "data": {"method": request.method, "path": path, "status": status, "code": code},
        **caller.actor.columns(),
    }
    message = detail[:500].encode(errors="replace").decode()
    try:
        await sluice.store.write(lambda session: append_event(session, sluice.clock.now(), "refused", message, **fields))
    except OperationalError as error:  # a full disk must not turn a refusal into a failure
        log.error("a refused request could not be recorded", error=str(error.orig), **fields["data"])
    else:
        sluice.notifier.notify()
