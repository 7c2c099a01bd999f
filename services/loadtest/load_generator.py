"""Mixed load that records every request.

Usage: `async with LoadGenerator(url) as load: … load.mark("deploy")`. A clock sets the rate, not the answers. Hence a
stall makes requests late and becomes visible. Clients that wait for an answer before the next request would fall
silent and hide it.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit
from uuid import uuid4

from services.loadtest.http1_client import Connection, ConnectionBroken, HttpResponse, request
from services.loadtest.request_log import LATE_SECONDS, RequestKind, RequestLog, RequestRecord

TICK = 0.01
"""Seconds between two bursts."""


@dataclass(frozen=True)
class Workload:
    """The requests to send. Shares are of all requests; the rest are plain GETs. Times in seconds."""

    rate: float = 300
    posts: float = 0.30
    slow: float = 0.04
    slow_seconds: float = 2.0
    fresh: float = 0.25
    """Share of requests sent on their own connection, which is closed afterwards."""
    keep_alive: int = 64
    """Maximum idle connections kept."""
    idle_seconds: float = 4
    """Seconds after which an idle connection is not reused.

    A gateway may be closing an older one at that moment, and a request lost then is not the gateway's fault. Every
    client with keep-alive connections does the same.
    """
    patience: float = LATE_SECONDS
    """Seconds beyond a request's own time, plus one, after which the client stops waiting."""
    in_flight: int = 1000
    """Maximum requests in flight; the load waits when it is reached."""
    requests: int = 1_000_000
    seconds: float = 3600
    seed: int = 1
    """Seed of the random order of the requests."""


class LoadGenerator:
    """Background sender of requests to `url`, until the context exits or `workload` is completed.

    Plain GETs request `url` itself. POSTs and slow requests use paths of samples/hello below it (`orders/{id}`,
    `slow`); a mix without them can be sent to any server. `executions` returns, at the end, how often each POST id
    was run. Without it, and if a POST was sent, the path `ledger` below `url` is requested. `version_header` names
    the answering version if the answer names no instance.
    """

    def __init__(
        self,
        url: str,
        workload: Workload | None = None,
        *,
        phase: str = "before",
        host: str | None = None,
        version_header: str = "X-Version",
        executions: Callable[[], Awaitable[Counter[str]]] | None = None,
        on_entry: Callable[[RequestRecord], None] | None = None,
    ) -> None:
        parts = urlsplit(url)
        self.mix = workload or Workload()
        self.request_log = RequestLog(on_entry=on_entry)
        self._tls = parts.scheme == "https"
        self._address = (parts.hostname or "127.0.0.1", parts.port or (443 if self._tls else 80))
        self._path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._prefix = parts.path.rstrip("/")
        self._host = host or parts.netloc.rpartition("@")[2]
        self._version_header = version_header.lower()
        self._random = random.Random(self.mix.seed)  # noqa: S311 - a mix, not a secret
        self._executions = executions or self.read_executions
        self._idle: deque[Connection] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._phase = phase
        self._phase_began = 0.0
        self._began = 0.0
        self._run = uuid4().hex[:8]
        self._sent = 0
        self._news = asyncio.Event()
        self._pump: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._began = self._phase_began = time.monotonic()
        self._pump = asyncio.create_task(self._send_all())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop sending, wait for the requests in flight, then count the executions."""
        if self._pump is not None:
            self._pump.cancel()
            await asyncio.gather(self._pump, return_exceptions=True)
        self._close_phase()
        await asyncio.gather(*self._tasks)
        if error is None and any(entry.id for entry in self.request_log.entries):
            self.request_log.executions = await self._executions()
        for connection in self._idle:
            connection.close()

    def mark(self, phase: str) -> None:
        """Assign requests that start from now on to this phase. The metrics of a repeated name are summed."""
        self._close_phase()
        self._phase = phase

    @property
    def phase(self) -> str:
        return self._phase

    async def ask(self, kind: RequestKind) -> RequestRecord:
        """Send one request now and return its record, which is also in `request_log`."""
        self._sent += 1
        entry = await self._once(kind, f"{self._run}-{self._sent}" if kind == "POST" else "")
        self.request_log.add(entry)
        self._news.set()
        return entry

    async def until(self, condition: Callable[[RequestLog], bool], within: float = 30) -> None:
        """Wait until the records so far satisfy the condition. Raises TimeoutError."""
        async with asyncio.timeout(within):
            while not condition(self.request_log):
                self._news.clear()
                await self._news.wait()

    def _close_phase(self) -> None:
        now = time.monotonic()
        self.request_log.phases[self._phase] = self.request_log.phases.get(self._phase, 0.0) + now - self._phase_began
        self._phase_began = now

    async def _send_all(self) -> None:
        began = time.monotonic()
        started = 0
        while started < self.mix.requests and (passed := time.monotonic() - began) < self.mix.seconds:
            due = min(int(passed * self.mix.rate) + 1, self.mix.requests)
            while started < due and len(self._tasks) < self.mix.in_flight:
                task = asyncio.create_task(self._count(self._kind()))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
                started += 1
            await asyncio.sleep(TICK)

    async def _count(self, kind: RequestKind) -> None:
        await self.ask(kind)

    def _kind(self) -> RequestKind:
        dice = self._random.random()
        if dice < self.mix.slow:
            return "SLOW"
        return "POST" if dice < self.mix.slow + self.mix.posts else "GET"

    async def _once(self, kind: RequestKind, id: str) -> RequestRecord:
        phase, began = self._phase, time.monotonic()
        own = self.mix.slow_seconds if kind == "SLOW" else 0.0
        fresh = self._random.random() < self.mix.fresh
        answer, error = None, ""
        connection: Connection | None = None
        try:
            async with asyncio.timeout(own + self.mix.patience + 1):
                connection = await self._connection(fresh)
                answer = await connection.send(self._request(kind, id, close=fresh))
        except TimeoutError:
            error = "no answer in time"
        except Exception as problem:  # any failure is one failed request
            error = str(problem) or type(problem).__name__
        if connection is not None:
            self._put_back(connection, None if fresh else answer)
        status = answer.status if answer else None
        if answer and not 200 <= answer.status < 300:
            error = answer.body[:200].decode("utf-8", "replace")
        elif answer and id and b'"id"' in answer.body and id.encode() not in answer.body:
            status, error = None, f"response to another request: {answer.body[:200]!r}"
        return RequestRecord(
            at=began - self._began,
            phase=phase,
            kind=kind,
            fresh=fresh,
            own=own,
            latency=time.monotonic() - began,
            status=status,
            answered_by=answer.headers.get("x-instance", "") if answer else "",
            version=answer.headers.get(self._version_header, "") if answer else "",
            id=id,
            error=error,
        )

    def _request(self, kind: RequestKind, id: str, *, close: bool) -> bytes:
        if kind == "POST":
            return request("POST", self._host, f"{self._prefix}/orders/{id}", close=close)
        path = f"{self._prefix}/slow?seconds={self.mix.slow_seconds:g}" if kind == "SLOW" else self._path
        return request("GET", self._host, path, close=close)

    async def _connection(self, fresh: bool) -> Connection:
        while not fresh and self._idle:
            connection = self._idle.pop()
            if connection.alive and time.monotonic() - connection.idle_since < self.mix.idle_seconds:
                return connection
            connection.close()
        return await Connection.open(*self._address, tls=self._tls)

    def _put_back(self, connection: Connection, answer: HttpResponse | None) -> None:
        if answer is not None and answer.reusable and connection.alive and len(self._idle) < self.mix.keep_alive:
            connection.idle_since = time.monotonic()
            self._idle.append(connection)
        else:
            connection.close()

    async def get_path(self, below: str = "") -> HttpResponse:
        """Send one plain GET to the URL, or to a path `below` it, on its own connection; it is not recorded.

        Raises Broken, OSError or TimeoutError (30 s).
        """
        path = f"{self._prefix}/{below}" if below else self._path
        async with asyncio.timeout(30):
            connection = await Connection.open(*self._address, tls=self._tls)
            try:
                return await connection.send(request("GET", self._host, path, close=True))
            finally:
                connection.close()

    async def read_executions(self) -> Counter[str]:
        """Return how often the application ran each id.

        Raises what `get_path` raises, and Broken for any other answer.
        """
        answer = await self.get_path("ledger")
        try:
            ids = json.loads(answer.body)
        except ValueError:
            ids = None
        if answer.status != 200 or not isinstance(ids, list):
            raise ConnectionBroken(f"/ledger answered {answer.status} without a list of ids")
        return Counter(ids)
