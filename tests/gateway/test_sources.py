"""The ports on the bridge answer the instances' network alone, whatever else reaches its address."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from services.gateway.files import Files
from services.gateway.haproxy import Gateway
from tests.gateway.yard import BRIDGE, INTERNAL, NET, PORT, PUBLIC, Yard, real_gateway, service

pytestmark = [pytest.mark.anyio, pytest.mark.docker]
INSIDE, OUTSIDE = f"{NET}.250", "127.0.0.1"
SUBNET = f"{NET}.0/24"


@pytest.fixture
async def fenced(image: str) -> AsyncIterator[Yard]:
    """Instances are those of 127.18.n.0/24; the other loopback addresses stand for docker0 and the LAN."""
    async with real_gateway(subnet=SUBNET) as place:
        yield place


async def status(source: str, port: int, host: str, at: str = BRIDGE) -> bytes:
    """The answer's status to a client at this address; empty when the connection is closed without one."""
    try:
        async with asyncio.timeout(10):
            reader, writer = await asyncio.open_connection(at, port, local_addr=(source, 0))
            writer.write(f"GET /x HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
            answer = await reader.read()
            writer.close()
    except ConnectionError:
        return b""
    return answer[9:12]


async def test_internal_ports_and_links_answer_the_instances_network_only(fenced: Yard) -> None:
    await fenced.serve(service("api", routes=(), linked=True), 1)
    for port in (INTERNAL, PORT):
        assert await status(INSIDE, port, f"api:{PORT}") == b"200"
        assert await status(BRIDGE, port, f"api:{PORT}") == b"200"
        assert await status(OUTSIDE, port, f"api:{PORT}") == b""


async def test_a_link_on_the_public_port_is_found_from_the_instances_network_only(fenced: Yard) -> None:
    await fenced.gateway.publish(service("api", routes=(), port=PUBLIC, linked=True))
    await fenced.gateway.admit((await fenced.instance("api-r1-1")).member())
    host = f"api:{PUBLIC}"
    assert await status(INSIDE, PUBLIC, host) == b"200"
    assert await status(OUTSIDE, PUBLIC, host) == b"404"
    assert await status(OUTSIDE, PUBLIC, host, at="127.0.0.1") == b"404"


async def test_files_of_a_version_without_a_subnet_are_adopted_and_written_again(fenced: Yard) -> None:
    await fenced.serve(service("api", routes=()), 1)
    older = fenced.directory / "haproxy.cfg"
    older.write_text(older.read_text().replace(f'"subnet": "{SUBNET}", ', "").replace("tcp-request", "#"))
    assert "subnet" not in older.read_text()
    wanted = Files(fenced.directory).read()
    assert wanted is not None and [each.name for each in wanted[1]] == ["api"]
    next_gateway = Gateway(fenced.directory)
    try:
        await next_gateway.stand_on(replace(fenced.settings, subnet=f"{NET}.240/28"))
        await next_gateway.restore([each.service for each in wanted[1]], list(wanted[1][0].members.values()))
        assert await status(INSIDE, INTERNAL, "x") == b"200"
        assert await status(f"{NET}.9", INTERNAL, "x") == b""
    finally:
        await next_gateway.close()
