"""Server of a DashboardFixture on a real port, for tests of the dashboard's streams."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn

from app.server import Server
from tests.support.dashboard_fixture import DashboardFixture

PATIENCE = 20.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def serving(fixture: DashboardFixture, port: int) -> Iterator[str]:
    """Serve until the block is left, then stop as Sluice does, ending the streams first. Yields the URL."""
    server = _Server(
        uvicorn.Config(fixture.app, host="127.0.0.1", port=port, log_config=None, timeout_graceful_shutdown=10), fixture
    )
    thread = threading.Thread(target=server.run, name="dashboard")
    thread.start()
    try:
        deadline = time.monotonic() + PATIENCE
        while not server.up.wait(0.1):
            assert thread.is_alive() and time.monotonic() < deadline, "the server did not start"
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(PATIENCE)
        fixture.loop = None
    assert not thread.is_alive(), "the server did not stop"


class _Server(Server):
    def __init__(self, config: uvicorn.Config, fixture: DashboardFixture) -> None:
        super().__init__(config)
        self.fixture = fixture
        self.up = threading.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.fixture.loop = asyncio.get_running_loop()
        self.up.set()
