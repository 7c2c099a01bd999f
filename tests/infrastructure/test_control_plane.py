"""`sluice up` behind the engine's port: when the container is started or replaced, and what the wait for it reports."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from services.engine.infrastructure_port import ControlPlaneSpec, ControlPlaneView
from services.engine.port import EngineError
from services.infrastructure.control_plane import ControlPlane, ListenAddresses
from tests.support.fakes.control_plane import FakeControlPlaneEngine

pytestmark = pytest.mark.anyio

SPEC = ControlPlaneSpec("sluice:1", "/srv/sluice", "/var/run/docker.sock")
READY = b'HTTP/1.1 200 OK\r\nContent-Length: 18\r\nConnection: close\r\n\r\n{"status":"ready"}'
NOT_READY = b'HTTP/1.1 503 Service Unavailable\r\nContent-Length: 27\r\nConnection: close\r\n\r\n{"detail":"engine is away"}'


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
    return port


class Sluice:
    """A control plane on a fake engine; `/readyz` answers `answer` from the moment its container is started."""

    def __init__(self, answer: bytes | None = READY) -> None:
        self.engine = FakeControlPlaneEngine()
        self.port, self.gateway_port = free_port(), free_port()
        self.reported: list[str] = []
        addresses = ListenAddresses("127.0.0.1", self.port, self.gateway_port)
        self.control_plane = ControlPlane(self.engine, SPEC, addresses, self.reported.append)
        self._answer = answer
        self._tasks: list[asyncio.Task[None]] = []
        self.engine.on_start = self.serve

    def serve(self) -> None:
        if self._answer is not None:
            self._tasks.append(asyncio.create_task(self._serve(self._answer)))

    def close(self) -> None:
        for task in self._tasks:
            task.cancel()

    async def _serve(self, answer: bytes) -> None:
        async def reply(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer)
            writer.close()

        async with await asyncio.start_server(reply, "127.0.0.1", self.port) as server:
            await server.serve_forever()


@asynccontextmanager
async def sluice(answer: bytes | None = READY) -> AsyncIterator[Sluice]:
    fixture = Sluice(answer)
    try:
        yield fixture
    finally:
        fixture.close()


async def test_absent_container_is_started_and_awaited() -> None:
    async with sluice() as fixture:
        await fixture.control_plane.up()
    assert (fixture.engine.calls, fixture.reported) == (["ensure"], ["starting sluice"])


async def test_outdated_container_is_replaced() -> None:
    async with sluice() as fixture:
        fixture.engine.present = ControlPlaneView(running=True, outdated=True)
        await fixture.control_plane.up()
    assert (fixture.engine.calls, fixture.reported) == (["ensure"], ["replacing sluice"])


async def test_running_container_that_is_up_to_date_is_left_alone() -> None:
    async with sluice() as fixture:
        fixture.engine.present = ControlPlaneView(running=True)
        fixture.serve()
        await fixture.control_plane.up()
    assert (fixture.engine.calls, fixture.reported) == ([], [])


async def test_taken_port_is_reported_before_the_container_is_started() -> None:
    async with sluice() as fixture:
        with socket.create_server(("127.0.0.1", fixture.port)):
            with pytest.raises(EngineError, match=f"Port {fixture.port} of 127.0.0.1 is in use; choose another SLUICE_PORT"):
                await fixture.control_plane.up()
        assert fixture.engine.calls == []


async def test_port_of_the_running_gateway_is_not_reported_as_taken() -> None:
    async with sluice() as fixture:
        with socket.create_server(("0.0.0.0", fixture.gateway_port)):
            with pytest.raises(
                EngineError, match=f"Port {fixture.gateway_port} is in use; choose another SLUICE_GATEWAY_PORT"
            ):
                await fixture.control_plane.up()
            fixture.engine.gateway = True
            await fixture.control_plane.up()


async def test_process_that_exits_at_every_start_is_reported_with_its_log() -> None:
    async with sluice(answer=None) as fixture:
        fixture.engine.failing, fixture.engine.log = True, "the database is corrupt\n"
        with pytest.raises(EngineError) as refused:
            await fixture.control_plane.up()
    assert str(refused.value) == '"sluice" exits at every start\nEnd of its log:\nthe database is corrupt'


async def test_container_that_is_removed_while_it_starts_is_reported() -> None:
    async with sluice(answer=None) as fixture:
        fixture.engine.vanishing = True
        with pytest.raises(EngineError, match="disappeared during its start"):
            await fixture.control_plane.up()


async def test_sluice_that_does_not_become_ready_is_reported_with_its_own_reason() -> None:
    async with sluice(NOT_READY) as fixture:
        with pytest.raises(EngineError, match=r"/readyz is not ready after 1 s: engine is away"):
            await fixture.control_plane.up(timeout=1)


async def test_down_removes_everything_and_returns_what_was_removed() -> None:
    async with sluice() as fixture:
        assert await fixture.control_plane.down() == ["container sluice", "data in /srv/sluice"]
    assert fixture.engine.calls == ["remove_all"]


@pytest.mark.parametrize(
    ("host", "url"),
    [("0.0.0.0", "http://127.0.0.1:8001"), ("::", "http://127.0.0.1:8001"), ("fd00::1", "http://[fd00::1]:8001")],
)
def test_url_names_an_address_that_can_be_called(host: str, url: str) -> None:
    assert ListenAddresses(host, 8001, 8000).url == url
