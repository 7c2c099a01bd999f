"""Minimal HTTP/1.1 client for one connection, with just enough for a load generator.

An HTTP library costs about 1.5 ms of CPU per request. On a small machine the client would then be most of the load
that is measured.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import cast

MAX_HEAD = 65_536
"""Maximum bytes of an answer's head; a longer one is an error."""


class ConnectionBroken(Exception):
    """The connection gave no complete answer; the message says how it ended."""


@dataclass(frozen=True)
class HttpResponse:
    """A complete answer. Header names are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes
    reusable: bool


class Connection(asyncio.Protocol):
    """One connection, for one request at a time."""

    def __init__(self) -> None:
        self.alive = False
        self.idle_since = 0.0
        """Monotonic time of the last answer."""
        self._transport: asyncio.Transport | None = None
        self._data = bytearray()
        self._answer: asyncio.Future[HttpResponse] | None = None
        self._head: tuple[int, dict[str, str], int] | None = None

    @classmethod
    async def open(cls, host: str, port: int, *, tls: bool = False) -> Connection:
        """Open a connection. Raises OSError if it is refused or a certificate is invalid."""
        _, connection = await asyncio.get_running_loop().create_connection(cls, host, port, ssl=tls or None)
        return connection

    async def send(self, request: bytes) -> HttpResponse:
        """Send a request and wait for the complete answer, without a timeout. Raises Broken."""
        if self._transport is None or not self.alive:
            raise ConnectionBroken("closed before the request was sent")
        self._data.clear()
        self._head = None
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        try:
            return await self._answer
        finally:
            self._answer = None

    def close(self) -> None:
        self.alive = False
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self.alive = True

    def data_received(self, data: bytes) -> None:
        if self._answer is None:
            return self.close()  # an answer without a request: the connection must not be reused
        self._data += data
        try:
            self._parse(ended=False)
        except (ConnectionBroken, ValueError) as error:
            self._fail(str(error))

    def connection_lost(self, exc: Exception | None) -> None:
        self.alive = False
        try:
            self._parse(ended=exc is None)
        except (ConnectionBroken, ValueError) as error:
            self._fail(str(error))
        got = f"after {len(self._data)} bytes of an answer" if self._data else "before any answer"
        self._fail(f"{type(exc).__name__ if exc else 'closed'} {got}")

    def _fail(self, why: str) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(ConnectionBroken(why))
        self.close()

    def _parse(self, *, ended: bool) -> None:
        if self._answer is None or self._answer.done():
            return
        if self._head is None:
            end = self._data.find(b"\r\n\r\n")
            if end < 0:
                if len(self._data) > MAX_HEAD:
                    raise ConnectionBroken("response header too long")
                return
            self._head = (*_head(bytes(self._data[:end])), end + 4)
        status, headers, start = self._head
        found = _body(self._data, start, headers, ended=ended)
        if found is None:
            return
        body, end = found
        keep = headers.get("connection", "").lower() != "close" and not ended and len(self._data) == end
        if not keep:
            self.alive = False
        self._answer.set_result(HttpResponse(status, headers, body, keep))


def request(method: str, host: str, path: str, *, body: bytes = b"", close: bool = False, **headers: str) -> bytes:
    """Return a request as bytes. Header names have `_` in place of `-`."""
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    if body or method == "POST":
        lines.append(f"Content-Length: {len(body)}")
    if close:
        lines.append("Connection: close")
    return "\r\n".join([*lines, "", ""]).encode() + body


def _head(text: bytes) -> tuple[int, dict[str, str]]:
    first, *rest = text.decode("latin-1").split("\r\n")
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in rest)}
    return int(first.split(" ", 2)[1]), headers


def _body(data: bytearray, start: int, headers: dict[str, str], *, ended: bool) -> tuple[bytes, int] | None:
    """Return the body and its end if it is complete, otherwise None.

    A body without a length is complete if the connection ended cleanly.
    """
    if headers.get("transfer-encoding", "").lower() == "chunked":
        return _chunks(data, start)
    if "content-length" in headers:
        end = start + int(headers["content-length"])
        return (bytes(data[start:end]), end) if len(data) >= end else None
    return (bytes(data[start:]), len(data)) if ended else None


def _chunks(data: bytearray, at: int) -> tuple[bytes, int] | None:
    whole = bytearray()
    while (line := data.find(b"\r\n", at)) >= 0:
        size = int(bytes(data[at:line]).split(b";")[0], 16)
        end = line + 2 + size
        if len(data) < end + 2:
            return None
        if size == 0:
            return bytes(whole), end + 2
        whole += data[line + 2 : end]
        at = end + 2
    return None
