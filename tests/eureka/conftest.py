"""A registry with its port open on loopback, as real clients find it."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import anyio
import pytest

from app.eureka import port as eureka_port
from app.eureka.door import Door
from app.eureka.guard import Guard
from services.clock import SystemClock
from services.discovery.keeping import Keeper
from services.discovery.ours import Ours
from services.discovery.registry import Registry
from services.store.open import open_store


@dataclass
class Running:
    """`stop` ends it before the block does."""

    port: int
    stop: Callable[[], None] = lambda: None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/eureka"


@contextmanager
def running(data: Path, port: int) -> Iterator[Running]:
    """The registry and its port in a thread of their own; what it kept is found by the next on the same `data`."""
    up, loop = threading.Event(), asyncio.new_event_loop()
    ending = asyncio.Event()
    thread = threading.Thread(target=loop.run_until_complete, args=(_main(data, port, up, ending),))
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


async def _main(data: Path, port: int, up: threading.Event, ending: asyncio.Event) -> None:
    store = open_store(data)
    registry = Registry(SystemClock(), Keeper(store))
    await registry.open()
    await Ours(registry).restore([], [])
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(eureka_port.serve, Door(registry, Guard(None)), ["127.0.0.1"], port)
        tasks.start_soon(_tick, registry)
        await _until_it_answers(port)
        up.set()
        await ending.wait()
        tasks.cancel_scope.cancel()
    store.close()


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
    """A port that is free now."""
    return free_port()


@pytest.fixture
def eureka(tmp_path: Path) -> Iterator[Running]:
    with running(tmp_path, free_port()) as made:
        yield made


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
