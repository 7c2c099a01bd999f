"""The ASGI application on the Eureka port: from requests to the registry and back, byte for byte as Netflix's clients want
it.

Not a FastAPI app: clients read meaning into empty bodies, exact statuses and missing redirects (../shared/facts/eureka.md
§2.3), and a heartbeat is to cost as little as can be.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, unquote

import anyio
from starlette.types import Message, Receive, Scope, Send

from app.eureka import answers, operations
from app.eureka.answers import Answer
from app.eureka.guard import Guard
from services.discovery.registry import Registry

MAX_BODY = 65_536
"""Bytes of a registration: real ones have about 1,000."""
MAX_FIELDS = 200
"""Parameters of a query, which are the metadata of one operation: twice what is kept of it."""
BODY_WITHIN = 10.0
"""Seconds for a whole body."""


@dataclass(frozen=True)
class Call:
    """A request as the operations see it."""

    method: str
    path: tuple[str, ...]
    """After `/eureka`, decoded, without empty parts."""
    query: Mapping[str, str]
    headers: Mapping[str, str]
    remote: str
    direct: bool
    """The real instances were asked for, whatever consumers are shown."""
    body: Callable[[], Awaitable[bytes]]

    @property
    def identity(self) -> str:
        """How the client tells itself from others at the same address."""
        named = [self.headers.get(f"discoveryidentity-{part}") for part in ("name", "version", "id")]
        return "/".join(part for part in named if part) or self.headers.get("user-agent", "")


class TooLarge(Exception):
    """The body is larger than a registration may be, or did not come in time."""


class TooMany(Exception):
    """The query has more parameters than any operation takes."""


class Door:
    def __init__(self, registry: Registry, guard: Guard) -> None:
        self._registry = registry
        self._guard = guard

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        try:
            answer = await self._answer(_call(scope, receive))
        except TooLarge:
            answer = answers.plain(413, f"A registration has at most {MAX_BODY} bytes")
        except TooMany:
            answer = answers.plain(400, f"A query has at most {MAX_FIELDS} parameters")
        await _send(send, answer, head=scope["method"] == "HEAD")

    async def _answer(self, call: Call) -> Answer:
        caller = await self._guard.caller(call.headers)
        if caller is None:
            return answers.UNAUTHORIZED
        return await operations.perform(self._registry, call, caller)


def _call(scope: Scope, receive: Receive) -> Call:
    raw = scope.get("raw_path") or scope["path"].encode()
    # decoded once, after the parts are told apart: an id may hold an encoded slash
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
    client = scope.get("client") or ("", 0)
    return Call(
        method=scope["method"],
        path=tuple(parts) if known else ("",),
        query=query,
        headers=headers,
        remote=client[0],
        direct=direct,
        body=lambda: _body(receive),
    )


async def _body(receive: Receive) -> bytes:
    parts: list[bytes] = []
    size = 0
    with anyio.move_on_after(BODY_WITHIN):
        while True:
            message: Message = await receive()
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if size > MAX_BODY or message["type"] == "http.disconnect":
                raise TooLarge
            if not message.get("more_body"):
                return b"".join(parts)
    raise TooLarge


async def _send(send: Send, answer: Answer, *, head: bool) -> None:
    headers: list[tuple[bytes, bytes]] = [*answer.headers]
    if answer.status != 204:
        headers.append((b"content-length", str(len(answer.body)).encode()))
    start: dict[str, Any] = {"type": "http.response.start", "status": answer.status, "headers": headers}
    await send(start)
    await send({"type": "http.response.body", "body": b"" if head else answer.body})
