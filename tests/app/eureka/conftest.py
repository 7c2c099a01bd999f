"""A registry with its port open on loopback, for real clients."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path

import anyio
import pytest
from sqlmodel import Session

from app.eureka import server as eureka_port
from app.eureka.asgi import EurekaApp
from app.eureka.auth import EurekaAuth
from services.clock import SystemClock
from services.eureka.local_lease_directory import LocalLeaseDirectory
from services.eureka.registry import Registry
from services.eureka.repository import LeaseRepository
from services.routing.port import Endpoint, RoutedService
from services.store.open import open_store
from services.store.tables import Deployment, Instance, Service

LOOPBACK = "127.0.0.1"


@dataclass
class Running:
    """A running registry; `stop` ends it before the end of the block."""

    port: int
    stop: Callable[[], None] = lambda: None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/eureka"


@contextmanager
def running(data: Path, port: int, place: str = "elsewhere") -> Iterator[Running]:
    """Run the registry and its port in a thread; a later run on the same `data` finds its leases.

    `place` is where clients on loopback appear to be: "elsewhere", or in an "instance" of the service web.
    """
    up, loop = threading.Event(), asyncio.new_event_loop()
    ending = asyncio.Event()
    thread = threading.Thread(target=loop.run_until_complete, args=(_main(data, port, place, up, ending),))
    thread.start()
    assert up.wait(30)

    def stop() -> None:
        if thread.is_alive():
            loop.call_soon_threadsafe(ending.set)
            thread.join()
            loop.close()

    try:
        yield Running(port, stop)
    finally:
        stop()


async def _main(data: Path, port: int, place: str, up: threading.Event, ending: asyncio.Event) -> None:
    store = open_store(data)
    registry = Registry(SystemClock(), LeaseRepository(store))
    await registry.open()
    if place == "instance":
        registry.ownership.network = IPv4Network("127.0.0.0/8")
        await store.write(_an_instance_of_web)
        web = RoutedService("web", 9000, 18001, advertise="instances")
        await LocalLeaseDirectory(registry).restore([web], [Endpoint("web-r1-1", "web", LOOPBACK, 9000, "start")])
    else:
        registry.consumer_view.host = "10.9.0.1"
        registry.ownership.network = IPv4Network("10.9.0.0/24")
        await LocalLeaseDirectory(registry).restore([], [])
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(eureka_port.serve, EurekaApp(registry, EurekaAuth(None)), ["127.0.0.1"], port)
        tasks.start_soon(_tick, registry)
        await _until_it_answers(port)
        up.set()
        await ending.wait()
        tasks.cancel_scope.cancel()
    store.close()


def _an_instance_of_web(session: Session) -> None:
    session.merge(Service(name="web", internal_port=18001, created_at=0))
    session.flush()
    session.merge(Deployment(id=1, service="web", kind="deploy", created_at=0))
    session.flush()
    session.merge(
        Instance(id="web-r1-1", service="web", revision=1, deployment=1, slot=1, address=LOOPBACK, hash="h", created_at=0)
    )


async def _until_it_answers(port: int) -> None:
    while True:
        try:
            await (await anyio.connect_tcp("127.0.0.1", port)).aclose()
        except OSError:
            await anyio.sleep(0.01)
        else:
            return


async def _tick(registry: Registry) -> None:
    while True:
        await anyio.sleep(0.2)
        await registry.tick()


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def unused() -> int:
    """Return a port that is free now."""
    return free_port()


@pytest.fixture(params=["instance", "elsewhere"])
def place(request: pytest.FixtureRequest) -> str:
    """Return the place of the test's clients."""
    return str(request.param)


@pytest.fixture
def eureka(tmp_path: Path, place: str) -> Iterator[Running]:
    with running(tmp_path, free_port(), place) as made:
        yield made


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
