"""An application on a loopback address, as a gateway sees one in a container; it can be killed."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from base64 import b64encode
from collections import Counter
from collections.abc import Coroutine, Iterable
from dataclasses import dataclass, field
from hashlib import sha1
from typing import Any

from services.routing.port import Endpoint
from services.spec import Healthcheck

_GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
HEALTHY = Healthcheck(path="/healthz", interval=0.5)


@dataclass
class Ledger:
    """Executed orders of all instances: POST id → how often."""

    orders: Counter[str] = field(default_factory=Counter)

    async def executions(self) -> Counter[str]:
        return self.orders


@dataclass(frozen=True)
class Asked:
    """A received request."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


class Instance:
    """HTTP server that stands for an application.

    It answers `/` with the request, `/slow?seconds=`, `/wait` (after `release`), `/orders/<id>` (recorded in the ledger),
    `/healthz`, `/events` (a stream), `/ws` (an echo), `/hang-up` (takes the request, and closes), `/status/<code>`.
    """

    def __init__(self, id: str, address: str, port: int, ledger: Ledger, *, healthcheck: Healthcheck = HEALTHY) -> None:
        self.id = id
        self.healthcheck = healthcheck
        self.health = 200
        self.hangs = False
        """Whether it accepts connections and answers nothing, as a stopped process does."""
        self.more_headers: list[bytes] = []
        """Additional header lines of its plain answers."""
        self.asked: list[Asked] = []
        self.open = 0
        self.release = asyncio.Event()
        """Event that `/wait` waits for."""
        self._address, self._port = address, port
        self._ledger = ledger
        self._listening: socket.socket | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._raw: set[socket.socket] = set()
        self._writers: set[asyncio.StreamWriter] = set()

    def endpoint(self, start_id: str = "c1@t1") -> Endpoint:
        service = self.id.rpartition("-r")[0]
        return Endpoint(self.id, service, self._address, self._port, start_id, self.healthcheck)

    async def start(self) -> Instance:
        # asyncio's own server leaks connections that it accepts at the moment when it is closed
        listening = socket.create_server((self._address, self._port), backlog=2048)
        listening.setblocking(False)
        self._listening = listening
        asyncio.get_running_loop().add_reader(listening, self._accept, listening)
        return self

    def kill(self) -> None:
        """Act as if killed by SIGKILL: the port refuses, every connection is reset."""
        for task in self._tasks:
            task.cancel()
        for writer in self._writers:
            connection: socket.socket = writer.get_extra_info("socket")
            if connection.fileno() >= 0:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
        self._writers.clear()
        if self._listening is not None:
            asyncio.get_running_loop().remove_reader(self._listening)
            self._listening.close()
            self._listening = None

    async def stop(self) -> None:
        """Stop it, and wait for its tasks."""
        self.kill()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _begin(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _accept(self, listening: socket.socket) -> None:
        try:
            connection, _ = listening.accept()
        except OSError:
            return
        connection.setblocking(False)
        self._raw.add(connection)
        self._begin(self._serve(connection)).add_done_callback(lambda _: self._drop(connection))

    def _drop(self, connection: socket.socket) -> None:
        """Close a connection that was accepted but never served."""
        if connection in self._raw:
            self._raw.discard(connection)
            connection.close()

    async def _serve(self, connection: socket.socket) -> None:
        reader, writer = await asyncio.open_connection(sock=connection)
        self._raw.discard(connection)
        self._writers.add(writer)
        try:
            while (asked := await _read(reader)) is not None:
                if asked.path != "/healthz":
                    self.asked.append(asked)
                self.open += 1
                try:
                    if not await self._answer(asked, reader, writer):
                        return
                finally:
                    self.open -= 1
        except (OSError, asyncio.CancelledError):
            return
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _answer(self, asked: Asked, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer the request; return whether the connection stays open."""
        if self.hangs:
            return bool(await reader.read(-1))
        path, _, query = asked.path.partition("?")
        name, _, rest = path.lstrip("/").partition("/")
        if name == "orders":
            self._ledger.orders[rest] += 1
            await self._send(writer, 200, {"id": rest})
        elif name == "slow":
            await asyncio.sleep(float(query.partition("=")[2]))
            await self._send(writer, 200, {})
        elif name == "wait":
            await self.release.wait()
            await self._send(writer, 200, {})
        elif name == "healthz":
            await self._send(writer, self.health, {})
        elif name == "status":
            await self._send(writer, int(rest), {})
        elif name == "hang-up":
            return False
        elif name == "events":
            await self._stream(writer)
            return False
        elif name == "ws":
            accept = b64encode(sha1((asked.headers["sec-websocket-key"] + _GUID).encode()).digest()).decode()  # noqa: S324
            head = f"HTTP/1.1 101 X\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n"
            writer.write(b"".join([head.encode(), *self.more_headers, b"\r\n"]))
            while data := await reader.read(1024):
                writer.write(data)
                await writer.drain()
            return False
        else:
            await self._send(writer, 200, {"path": asked.path, "headers": asked.headers, "body": len(asked.body)})
        return True

    async def _send(self, writer: asyncio.StreamWriter, status: int, content: object) -> None:
        body = json.dumps(content).encode()
        head = f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\nX-Instance: {self.id}\r\n"
        writer.write(b"".join([head.encode(), *self.more_headers, b"\r\n", body]))
        await writer.drain()

    async def _stream(self, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\ndata: first\n\n")
        await self.release.wait()
        writer.write(b"data: last\n\n")
        await writer.drain()


async def start_all(instances: Iterable[Instance]) -> list[Instance]:
    return [await instance.start() for instance in instances]


async def _read(reader: asyncio.StreamReader) -> Asked | None:
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
    first, *lines = head.rstrip().split("\r\n")
    method, path, _ = first.split(" ", 2)
    headers: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(":")
        before = headers.get(name.lower())
        headers[name.lower()] = f"{before}, {value.strip()}" if before else value.strip()
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    return Asked(method, path, headers, body)
