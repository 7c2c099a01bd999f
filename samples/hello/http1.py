"""Minimal HTTP/1.1 server on asyncio: keep-alive, bodies, streams, and a graceful stop."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

IDLE = 75.0
"""Keep-alive timeout in seconds; longer than a gateway's, so that only the gateway closes idle connections."""
MAX_HEAD = 65_536
MAX_BODY = 1_048_576
_REASONS = {
    101: "Switching Protocols",
    200: "OK",
    201: "Created",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
}
_REASONS |= {413: "Content Too Large", 500: "Internal Server Error", 503: "Service Unavailable"}


@dataclass(frozen=True)
class Request:
    """A request. Header names are lower case."""

    method: str
    path: str
    query: str
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True)
class Answer:
    """A response. `stream`, if given, takes the connection over after the header; the connection closes when it returns."""

    status: int = 200
    body: bytes = b""
    content_type: str = "text/plain; charset=utf-8"
    headers: dict[str, str] = field(default_factory=dict)
    stream: Callable[[Connection], Awaitable[None]] | None = None


Handle = Callable[[Request], "Answer | Awaitable[Answer]"]


class Server:
    """Server that answers with the result of `handle`. `headers` are added to every response."""

    def __init__(self, handle: Handle, headers: dict[str, str]) -> None:
        self.handle = handle
        self.head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        self.connections: set[Connection] = set()
        self.stopping = asyncio.Event()
        self._empty = asyncio.Event()

    async def serve(self, port: int) -> None:
        """Serve until `stop`, then finish the requests in flight."""
        loop = asyncio.get_running_loop()
        listener = await loop.create_server(lambda: Connection(self), "0.0.0.0", port, backlog=2048)
        sweeper = loop.create_task(self._close_idle())
        await self.stopping.wait()
        listener.close()
        for connection in list(self.connections):
            if not connection.occupied:
                connection.close()
        while self.connections:
            self._empty.clear()
            await self._empty.wait()
        sweeper.cancel()

    def stop(self) -> None:
        self.stopping.set()

    def left(self, connection: Connection) -> None:
        self.connections.discard(connection)
        if not self.connections:
            self._empty.set()

    async def _close_idle(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(5)
            for connection in list(self.connections):
                if not connection.occupied and loop.time() - connection.last_used > IDLE:
                    connection.close()


class Connection(asyncio.Protocol):
    """One connection, one request at a time."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._data = bytearray()
        self._task: asyncio.Task[None] | None = None
        self._fed: Callable[[], None] | None = None
        self.transport: asyncio.Transport
        self.busy = False
        self.closed = asyncio.Event()
        self.last_used = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]
        self.last_used = asyncio.get_running_loop().time()
        self._server.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed.set()
        if self._task is not None:
            self._task.cancel()
        self._server.left(self)

    def data_received(self, data: bytes) -> None:
        self._data += data
        if self._fed is not None:
            self._fed()
        elif not self.busy:
            self._next()

    def close(self) -> None:
        self.transport.close()

    @property
    def occupied(self) -> bool:
        """Whether a request is in progress or partly received."""
        return self.busy or bool(self._data)

    @property
    def stopping(self) -> asyncio.Event:
        return self._server.stopping

    def take(self) -> bytes:
        """Return the data that a stream received since the last call."""
        data = bytes(self._data)
        self._data.clear()
        return data

    async def more(self) -> None:
        """Wait for data of a stream."""
        if not self._data:
            news = asyncio.Event()
            self._fed = news.set
            await news.wait()

    def _next(self) -> None:
        try:
            request = self._parse()
        except _Bad as bad:
            self._send(Answer(bad.status, f"{bad}\n".encode()), "GET", keep=False)
            return
        if request is None:
            return
        self.busy = True
        keep = request.headers.get("connection", "").lower() != "close"
        try:
            answer = self._server.handle(request)
        except Exception as error:
            answer = Answer(500, f"{error}\n".encode())
        if isinstance(answer, Answer) and answer.stream is None:
            self._send(answer, request.method, keep=keep)
        else:
            self._task = asyncio.get_running_loop().create_task(self._later(answer, request.method, keep=keep))

    async def _later(self, answer: Answer | Awaitable[Answer], method: str, *, keep: bool) -> None:
        answer = answer if isinstance(answer, Answer) else await answer
        if answer.stream is None:
            self._task = None
            self._send(answer, method, keep=keep)
            return
        self.transport.write(self._head(answer, "", keep=answer.status == 101))
        try:
            await answer.stream(self)
        finally:
            self.close()

    def _send(self, answer: Answer, method: str, *, keep: bool) -> None:
        keep = keep and not self._server.stopping.is_set()
        head = self._head(answer, f"Content-Length: {len(answer.body)}\r\n", keep=keep)
        self.transport.write(head if method == "HEAD" else head + answer.body)
        self.busy = False
        if not keep:
            self.close()
            return
        self.last_used = asyncio.get_running_loop().time()
        if self._data:
            self._next()

    def _head(self, answer: Answer, length: str, *, keep: bool) -> bytes:
        own = "".join(f"{name}: {value}\r\n" for name, value in answer.headers.items())
        close = "" if keep else "Connection: close\r\n"
        kind = f"Content-Type: {answer.content_type}\r\n" if answer.status != 101 else ""
        reason = _REASONS.get(answer.status, "")
        return f"HTTP/1.1 {answer.status} {reason}\r\n{self._server.head}{kind}{length}{own}{close}\r\n".encode()

    def _parse(self) -> Request | None:
        """Remove and return the next complete request; None if it is incomplete."""
        end = self._data.find(b"\r\n\r\n")
        if end < 0:
            if len(self._data) > MAX_HEAD:
                raise _Bad(413, "the head is too long")
            return None
        first, *rest = bytes(self._data[:end]).decode("latin-1").split("\r\n")
        words = first.split(" ")
        if len(words) != 3:
            raise _Bad(400, "not HTTP")
        headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in rest)}
        found = self._body(end + 4, headers)
        if found is None:
            if headers.get("expect", "").lower() == "100-continue" and len(self._data) == end + 4:
                self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            return None
        body, after = found
        del self._data[:after]
        path, _, query = words[1].partition("?")
        return Request(words[0], path, query, headers, body)

    def _body(self, start: int, headers: dict[str, str]) -> tuple[bytes, int] | None:
        if headers.get("transfer-encoding", "").lower() == "chunked":
            return self._chunks(start)
        length = headers.get("content-length", "0")
        if not length.isdigit():
            raise _Bad(400, "Content-Length is not a number")
        end = start + int(length)
        if int(length) > MAX_BODY:
            raise _Bad(413, "the body is too long")
        return (bytes(self._data[start:end]), end) if len(self._data) >= end else None

    def _chunks(self, at: int) -> tuple[bytes, int] | None:
        whole = bytearray()
        while (line := self._data.find(b"\r\n", at)) >= 0:
            try:
                size = int(bytes(self._data[at:line]).split(b";")[0], 16)
            except ValueError:
                raise _Bad(400, "not a chunk") from None
            end = line + 2 + size
            if len(whole) + size > MAX_BODY:
                raise _Bad(413, "the body is too long")
            if len(self._data) < end + 2:
                return None
            if size == 0:
                return bytes(whole), end + 2
            whole += self._data[line + 2 : end]
            at = end + 2
        return None


class _Bad(Exception):
    def __init__(self, status: int, words: str) -> None:
        super().__init__(words)
        self.status = status
