"""The load generator reports every lost request, and reports no request as lost that was not."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from services.loadtest.http1_client import Connection
from services.loadtest.load_generator import LoadGenerator, Workload

Handle = Callable[[str, str], Awaitable[bytes]]
QUICK = Workload(rate=200, slow_seconds=0.05)


def answer(status: int = 200, body: bytes = b"ok", extra: str = "") -> bytes:
    return f"HTTP/1.1 {status} X\r\nX-Instance: web-r1-1\r\n{extra}Content-Length: {len(body)}\r\n\r\n".encode() + body


class Server:
    """HTTP server with persistent connections that sends what `handle(method, path)` returns; b"" closes instead."""

    def __init__(self, handle: Handle) -> None:
        self.handle = handle
        self.connections = 0
        self.ran: Counter[str] = Counter()
        self.greeting = b""
        """Bytes that are sent before `handle` is called."""

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while line := await reader.readline():
                method, path, _ = line.decode().split(" ")
                close = False
                while (header := await reader.readline()) != b"\r\n":
                    close = close or header.lower() == b"connection: close\r\n"
                if method == "POST":
                    self.ran[path.rpartition("/")[2]] += 1
                writer.write(self.greeting)
                reply = await self.handle(method, path)
                writer.write(reply)
                await writer.drain()
                if close or not reply:
                    break
        except ConnectionError:
            pass
        finally:
            writer.close()

    async def executions(self) -> Counter[str]:
        return self.ran


@asynccontextmanager
async def serving(handle: Handle) -> AsyncIterator[tuple[str, Server]]:
    server = Server(handle)
    listener = await asyncio.start_server(server.talk, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}/hello", server
    finally:
        listener.close()


@asynccontextmanager
async def serving_raw(reply: bytes, *, reset: bool) -> AsyncIterator[str]:
    """Serve `reply` to every request, then end the connection by a reset or a clean close."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(reply)
        await writer.drain()
        if reset:
            linger = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        writer.close()

    listener = await asyncio.start_server(talk, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    finally:
        listener.close()


def run(scenario: Callable[[], Awaitable[Any]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(20):
            await scenario()

    asyncio.run(bounded())


async def fine(method: str, path: str) -> bytes:
    if "slow" in path:
        await asyncio.sleep(0.05)
    return answer()


def test_server_without_faults_loses_nothing_and_gets_all_kinds() -> None:
    async def scenario() -> None:
        async with serving(fine) as (url, server):
            async with LoadGenerator(url, QUICK, phase="calm", executions=server.executions) as load:
                await load.until(lambda request_log: len(request_log.entries) >= 200)
            whole = load.request_log.summary()
            assert (whole.lost, whole.run_twice, load.request_log.unrecorded) == (0, 0, [])
            kinds = Counter(entry.kind for entry in load.request_log.entries)
            assert kinds["GET"] > kinds["POST"] > kinds["SLOW"] > 0
            assert {entry.fresh for entry in load.request_log.entries} == {True, False}
            assert server.connections < len(load.request_log.entries)
            assert load.request_log.versions() == {"web-r1-1": len(load.request_log.entries)}

    run(scenario)


def test_errors_and_broken_connections_are_lost_with_cause() -> None:
    async def faulty(method: str, path: str) -> bytes:
        return answer(503, b"no instance serves") if method == "POST" else b""

    async def scenario() -> None:
        async with serving(faulty) as (url, server):
            async with LoadGenerator(url, QUICK, executions=server.executions) as load:
                await load.until(lambda request_log: len(request_log.entries) >= 50)
        assert load.request_log.summary().lost == len(load.request_log.entries)
        assert "no instance serves" in load.request_log.explain(100)
        assert "before any answer" in load.request_log.explain(100)

    run(scenario)


def test_truncated_response_is_lost() -> None:
    async def short(method: str, path: str) -> bytes:
        raise ConnectionResetError

    async def scenario() -> None:
        async with serving(short) as (url, server):
            server.greeting = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"
            entry = await LoadGenerator(url, executions=server.executions).ask("GET")
        assert entry.lost
        assert "bytes of an answer" in entry.error

    run(scenario)


def test_body_without_length_is_complete_only_after_clean_close() -> None:
    async def scenario() -> None:
        for reset in (False, True):
            async with serving_raw(b"HTTP/1.1 200 OK\r\n\r\nsome of it", reset=reset) as url:
                entry = await LoadGenerator(url).ask("GET")
            assert entry.lost == reset

    run(scenario)


def test_response_to_another_request_is_lost() -> None:
    async def mixed_up(method: str, path: str) -> bytes:
        return answer(201, b'{"id": "another-order"}')

    async def scenario() -> None:
        async with serving(mixed_up) as (url, server):
            entry = await LoadGenerator(url, executions=server.executions).ask("POST")
        assert entry.lost
        assert "another request" in entry.error

    run(scenario)


def test_connection_with_unsolicited_bytes_after_response_is_not_reused() -> None:
    async def two_at_once(method: str, path: str) -> bytes:
        return answer() + answer()

    async def scenario() -> None:
        async with serving(two_at_once) as (url, server):
            load = LoadGenerator(url, Workload(fresh=0), executions=server.executions)
            assert not (await load.ask("GET")).lost
            assert not (await load.ask("GET")).lost
            assert server.connections == 2

    run(scenario)


def test_connection_that_was_idle_too_long_is_not_reused() -> None:
    async def scenario() -> None:
        async with serving(fine) as (url, server):
            load = LoadGenerator(url, Workload(fresh=0, idle_seconds=0), executions=server.executions)
            assert not (await load.ask("GET")).lost
            assert not (await load.ask("GET")).lost
            assert server.connections == 2

    run(scenario)


def test_fault_of_load_generator_is_recorded_as_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        async with serving(fine) as (url, server):
            load = LoadGenerator(url, executions=server.executions)

            async def raises(fresh: bool) -> Connection:
                raise KeyError("a bug")

            monkeypatch.setattr(load, "_connection", raises)
            assert (await load.ask("GET")).lost
        assert len(load.request_log.failures) == 1

    run(scenario)


def test_post_that_ran_twice_or_never_is_reported() -> None:
    async def scenario() -> None:
        async with serving(fine) as (url, server):
            load = LoadGenerator(url, QUICK, executions=server.executions)
            first, second = await load.ask("POST"), await load.ask("POST")
            load.request_log.executions = Counter({first.id: 2})
        assert load.request_log.twice == [first.id]
        assert load.request_log.unrecorded == [second.id]
        assert load.request_log.summary().run_twice == 1

    run(scenario)


def test_requests_belong_to_phase_in_which_they_began() -> None:
    async def scenario() -> None:
        async with serving(fine) as (url, server):
            async with LoadGenerator(url, QUICK, phase="one", executions=server.executions) as load:
                await load.until(lambda request_log: len(request_log.entries) >= 20)
                load.mark("two")
                await load.until(lambda request_log: request_log.summary("two").requests >= 20)
            one, two = load.request_log.summaries()
            assert (one.phase, two.phase) == ("one", "two")
            assert one.requests + two.requests == len(load.request_log.entries)
            assert one.seconds > 0 and two.seconds > 0

    run(scenario)


def test_chunked_response_is_complete_and_its_connection_reused() -> None:
    async def chunked(method: str, path: str) -> bytes:
        return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"

    async def scenario() -> None:
        async with serving(chunked) as (url, server):
            load = LoadGenerator(url, Workload(fresh=0), executions=server.executions)
            assert not (await load.ask("GET")).lost
            assert not (await load.ask("GET")).lost
            assert server.connections == 1

    run(scenario)


def test_load_ends_at_its_limit_of_requests() -> None:
    async def scenario() -> None:
        async with serving(fine) as (url, server):
            async with LoadGenerator(
                url, Workload(rate=500, requests=30, slow_seconds=0.05), executions=server.executions
            ) as load:
                await load.until(lambda request_log: len(request_log.entries) == 30)
        assert len(load.request_log.entries) == 30

    run(scenario)
