"""All of the infrastructure on a real engine, with the real gateway."""

from __future__ import annotations

import asyncio
import secrets
import socket
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import docker
import pytest
from docker.errors import APIError

from app.version import VERSION
from services.engine.docker.infrastructure import DockerInfrastructure
from services.gateway.haproxy import HaproxyRouter
from services.infrastructure.bootstrap import Infrastructure, InfrastructureSettings
from services.routing.port import RoutingError

pytestmark = [pytest.mark.anyio, pytest.mark.docker]


@pytest.fixture
def name() -> str:
    return f"sluice-test-{secrets.token_hex(4)}"


@pytest.fixture
async def engine(name: str) -> AsyncIterator[DockerInfrastructure]:
    engine = DockerInfrastructure(name)
    yield engine
    engine.close()
    client: Any = docker.APIClient(version="auto")
    with suppress(APIError):
        client.remove_container(f"{name}-gateway", v=True, force=True)
    with suppress(APIError):
        client.remove_network(name)
    client.close()


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[HaproxyRouter]:
    gateway = HaproxyRouter(tmp_path / "gateway")
    yield gateway
    await gateway.close()


@pytest.fixture
def settings(tmp_path: Path) -> InfrastructureSettings:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return InfrastructureSettings(data=tmp_path, gateway_image=f"sluice-gateway:{VERSION}", gateway_port=port, maxconn=500)


async def status(port: int, host: str = "127.0.0.1") -> bytes:
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    line = await reader.readline()
    writer.close()
    return line.split()[1]


async def test_infrastructure_is_created_and_adopted_by_the_next_process(
    engine: DockerInfrastructure, gateway: HaproxyRouter, settings: InfrastructureSettings, tmp_path: Path
) -> None:
    footing = await Infrastructure(engine, gateway, settings).ensure()
    assert await status(settings.gateway_port) == b"404"
    first = await gateway.status()
    container = await engine.inspect_gateway()
    host = (await engine.clients.call(lambda client: client.inspect_container(engine.gateway)))["HostConfig"]
    assert (host["SecurityOpt"], host["CapDrop"]) == (["no-new-privileges:true"], ["NET_RAW"])
    next_gateway = HaproxyRouter(tmp_path / "gateway")
    try:
        assert await Infrastructure(engine, next_gateway, settings).ensure() == footing
        second = await next_gateway.status()
    finally:
        await next_gateway.close()
    assert container == await engine.inspect_gateway()
    assert first is not None and second is not None and first["pid"] == second["pid"]


async def test_dead_gateway_is_restarted(
    engine: DockerInfrastructure, gateway: HaproxyRouter, settings: InfrastructureSettings, name: str
) -> None:
    await Infrastructure(engine, gateway, settings).ensure()
    client: Any = docker.APIClient(version="auto")
    client.kill(f"{name}-gateway")
    client.close()
    await Infrastructure(engine, gateway, settings).ensure()
    assert await status(settings.gateway_port) == b"404"


async def test_taken_public_port_is_reported_and_used_once_it_is_free(
    engine: DockerInfrastructure, gateway: HaproxyRouter, settings: InfrastructureSettings
) -> None:
    with socket.socket() as taken:
        taken.bind(("0.0.0.0", settings.gateway_port))
        taken.listen()
        with pytest.raises(RoutingError, match=r"(?i)cannot bind socket"):
            await Infrastructure(engine, gateway, settings).ensure()
    await Infrastructure(engine, gateway, settings).ensure()
    assert await status(settings.gateway_port) == b"404"


async def test_infrastructures_of_two_sluices_coexist(
    engine: DockerInfrastructure, gateway: HaproxyRouter, settings: InfrastructureSettings, name: str, tmp_path: Path
) -> None:
    footing = await Infrastructure(engine, gateway, settings).ensure()
    client: Any = docker.APIClient(version="auto")
    other_engine, other_gateway = DockerInfrastructure(f"{name}-2"), HaproxyRouter(tmp_path / "other" / "gateway")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    try:
        other = await Infrastructure(
            other_engine, other_gateway, replace(settings, data=tmp_path / "other", gateway_port=port)
        ).ensure()
        assert other.subnet != footing.subnet
        assert await status(port) == await status(settings.gateway_port) == b"404"
    finally:
        await other_gateway.close()
        other_engine.close()
        client.remove_container(f"{name}-2-gateway", v=True, force=True)
        client.remove_network(f"{name}-2")
        client.close()
