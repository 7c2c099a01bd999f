"""Slow and hostile clients at the gateway and at the API do not affect other clients."""

from __future__ import annotations

import asyncio
import resource
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import httpx
import pytest

from tests.support.service_fixture import ServiceFixture

pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.full, pytest.mark.anyio]

SLOW, IDLE, ALL = 200, 7500, 8000
"""`ALL` is the gateway's limit, `SLUICE_MAXCONN`."""


async def test_gateway_serves_others_despite_slow_and_idle_clients_and_huge_headers(
    isolated_service: ServiceFixture,
) -> None:
    await isolated_service.deploy(isolated_service.spec())
    async with (
        isolated_service.load() as load,
        _idle(isolated_service.sluice.gateway, IDLE),
        _dripping(isolated_service.sluice.gateway, SLOW),
    ):
        load.mark("besieged")
        assert await _huge(isolated_service.sluice.gateway) in (400, 431)
        await load.until(lambda request_log: request_log.summary("besieged").requests >= 400, within=60)
    print(f"besieged: {load.request_log.summary('besieged')}")
    async with _idle(isolated_service.sluice.gateway, ALL), httpx.AsyncClient(timeout=30) as http:
        began = time.monotonic()
        assert (await http.get(f"{isolated_service.sluice.gateway}/{isolated_service.service}")).status_code == 200
    print(f"every connection taken: {time.monotonic() - began:.1f} s")


async def test_api_serves_others_despite_slow_and_idle_clients_and_huge_headers(isolated_service: ServiceFixture) -> None:
    await isolated_service.deploy(isolated_service.spec())
    async with _idle(isolated_service.sluice.url, ALL), _dripping(isolated_service.sluice.url, SLOW):
        assert await _huge(isolated_service.sluice.url) in (400, 431)
        times = []
        for _ in range(50):
            began = time.monotonic()
            await isolated_service.get(f"/services/{isolated_service.service}")
            times.append(time.monotonic() - began)
        await isolated_service.update(image=isolated_service.images.two)
    print(f"besieged: worst of 50 reads {max(times) * 1000:.0f} ms")
    assert max(times) < 2


async def _connect(url: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    parts = urlsplit(url)
    return await asyncio.open_connection(parts.hostname, parts.port)


@asynccontextmanager
async def _idle(url: str, count: int) -> AsyncIterator[None]:
    """Hold connections that never send anything."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, 65536), most))
    opened = [await _connect(url) for _ in range(count)]
    try:
        yield
    finally:
        for _, writer in opened:
            writer.transport.abort()


@asynccontextmanager
async def _dripping(url: str, count: int) -> AsyncIterator[None]:
    """Send request headers one byte at a time without end."""

    async def drip() -> None:
        while True:
            _, writer = await _connect(url)
            try:
                writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: ")
                while not writer.transport.is_closing():
                    writer.write(b"a")
                    await writer.drain()
                    await asyncio.sleep(0.5)
            except OSError:
                pass
            finally:
                writer.transport.abort()

    tasks = [asyncio.create_task(drip()) for _ in range(count)]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _huge(url: str) -> int:
    """Return the status for 1 MB of headers; 400 if the connection is just closed."""
    reader, writer = await _connect(url)
    try:
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nX-Huge: " + b"a" * 1_000_000 + b"\r\n\r\n")
        line = await asyncio.wait_for(reader.readline(), 20)
        return int(line.split()[1]) if line else 400
    except OSError:
        return 400
    finally:
        writer.transport.abort()
