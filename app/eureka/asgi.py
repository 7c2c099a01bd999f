"""ASGI application of the Eureka port, with responses byte for byte as Netflix's clients expect them.

This is no FastAPI application: clients interpret empty bodies, exact statuses and missing redirects, and a heartbeat
must be cheap.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from urllib.parse import parse_qsl, unquote

import anyio
import structlog
from starlette.types import Message, Receive, Scope, Send

from app.eureka import operations, responses
from app.eureka.auth import EurekaAuth
from app.eureka.request import EurekaRequest, TooLarge, TooMany
from app.eureka.responses import EurekaResponse
from services.eureka.ownership import Forbidden
from services.eureka.registry import Registry

log = structlog.get_logger(__name__)
MAX_BODY = 262_144
"""Maximum bytes of a registration; real registrations have about 1,000, and more with large metadata."""
MAX_FIELDS = 200
"""Maximum parameters of a query: the metadata that one operation adds."""
BODY_TIMEOUT = 10.0
"""Seconds for a whole body."""


class EurekaApp:
    def __init__(self, registry: Registry, guard: EurekaAuth) -> None:
        self._registry = registry
        self._auth = guard
        self._told_at = 0.0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        try:
            answer = await self._answer(_parse_request(scope, receive))
        except TooLarge:
            answer = responses.plain(413, f"registration is larger than {MAX_BODY} bytes")
        except TooMany:
            answer = responses.plain(400, f"query has more than {MAX_FIELDS} parameters")
        await _send_response(send, answer, head=scope["method"] == "HEAD")

    async def _answer(self, request: EurekaRequest) -> EurekaResponse:
        if not self._registry.ownership.answers(request.local, request.remote):
            return EurekaResponse(403)
        caller = await self._auth.caller(request.headers)
        if caller is None:
            return responses.UNAUTHORIZED
        covers = caller.may_change if caller.bearer is not None else None
        try:
            return await operations.perform(self._registry, replace(request, covers=covers))
        except Forbidden as forbidden:
            self._tell(request, forbidden)
            # text only for POST: for the other methods clients expect a document in the body
            return responses.plain(403, str(forbidden)) if request.method == "POST" else EurekaResponse(403)

    def _tell(self, request: EurekaRequest, forbidden: Forbidden) -> None:
        """Log at most one refusal per second: clients retry, and an instance must not fill the log."""
        now = self._registry.clock.now()
        if now >= self._told_at + 1:
            self._told_at = now
            log.warning("eureka_forbidden", address=request.remote, method=request.method, error=str(forbidden))


def _parse_request(scope: Scope, receive: Receive) -> EurekaRequest:
    raw = scope.get("raw_path") or scope["path"].encode()
    # decoded once, after the split: an id may contain an encoded slash
    parts = [unquote(part) for part in raw.decode("latin-1").split("?")[0].split("/") if part]
    direct = parts[:1] == ["direct"]
    parts = parts[1:] if direct else parts
    known = parts[:1] == ["eureka"]
    parts = parts[2:] if parts[1:2] == ["v2"] else parts[1:]
    headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
    try:
        query = dict(parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True, max_num_fields=MAX_FIELDS))
    except ValueError as error:
        raise TooMany from error
    local, remote = (_address(scope.get(end)) for end in ("server", "client"))
    return EurekaRequest(
        method=scope["method"],
        path=tuple(parts) if known else ("",),
        query=query,
        headers=headers,
        local=local,
        remote=remote,
        direct=direct,
        body=lambda: _read_body(receive),
    )


def _address(end: tuple[str, int] | None) -> str:
    """Return the address of an end of the connection, with a mapped IPv6 address as IPv4."""
    return end[0].removeprefix("::ffff:") if end else ""


async def _read_body(receive: Receive) -> bytes:
    parts: list[bytes] = []
    size = 0
    with anyio.move_on_after(BODY_TIMEOUT):
        while True:
            message: Message = await receive()
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if size > MAX_BODY or message["type"] == "http.disconnect":
                raise TooLarge
            if not message.get("more_body"):
                return b"".join(parts)
    raise TooLarge


async def _send_response(send: Send, answer: EurekaResponse, *, head: bool) -> None:
    headers: list[tuple[bytes, bytes]] = [*answer.headers]
    if answer.status != 204:
        headers.append((b"content-length", str(len(answer.body)).encode()))
    start: dict[str, Any] = {"type": "http.response.start", "status": answer.status, "headers": headers}
    await send(start)
    await send({"type": "http.response.body", "body": b"" if head else answer.body})
