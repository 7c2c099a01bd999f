"""Ports on the bridge answer only the instances' network and the host itself.

The bridge here is docker0: a container on it is an instance if the gateway's subnet is docker0's, else a foreign container.
"""

from __future__ import annotations

import asyncio
import subprocess
from dataclasses import replace
from ipaddress import ip_network

import pytest

from services.gateway.haproxy import HaproxyRouter
from services.gateway.lifecycle.config_files import ConfigFiles
from tests.support.gateway_fixture import IMAGE, PUBLIC, GatewayFixture, real_gateway, service

pytestmark = [pytest.mark.anyio, pytest.mark.docker]
ELSEWHERE = "10.255.254.0/24"
INNER, LINK = PUBLIC + 200, PUBLIC + 1
"""Ports of this test process only, since all processes share docker0."""
ASK = """
trap "" PIPE
exec 3<>"/dev/tcp/$0/$1" || exit 9
printf "GET /x HTTP/1.1\\r\\nHost: $2\\r\\nConnection: close\\r\\n\\r\\n" >&3
read -r line <&3 || exit 9
echo "$line"
"""


def docker0() -> str:
    """Return the subnet of docker0."""
    command = ["docker", "network", "inspect", "bridge", "--format", "{{(index .IPAM.Config 0).Subnet}}"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


SUBNET = docker0()
BRIDGE = str(next(ip_network(SUBNET).hosts()))


async def status(port: int, host: str, *, network: str = "bridge") -> str:
    """Return the status of the bridge's answer to a container there; "" when the connection is closed without one."""
    words = ["docker", "run", "--rm", "--network", network, "--entrypoint", "timeout", IMAGE, "5", "bash", "-c", ASK]
    asking = await asyncio.create_subprocess_exec(
        *words, BRIDGE, str(port), host, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    said, complained = await asking.communicate()
    assert asking.returncode in (0, 9), complained
    return said.decode()[9:12]


async def published(gateway_fixture: GatewayFixture, port: int) -> None:
    """Publish a linked service without a route and admit an instance."""
    await gateway_fixture.gateway.publish(service("api", routes=(), port=port, internal_port=INNER, linked=True))
    await gateway_fixture.gateway.admit((await gateway_fixture.instance("api-r1-1")).endpoint())


@pytest.mark.parametrize(("subnet", "instance"), [(SUBNET, "200"), (ELSEWHERE, "")])
async def test_internal_ports_and_links_answer_only_instances_and_the_host(image: str, subnet: str, instance: str) -> None:
    async with real_gateway(bridge=BRIDGE, subnet=subnet) as gateway_fixture:
        await published(gateway_fixture, LINK)
        for port in (INNER, LINK):
            assert await status(port, f"api:{LINK}") == instance
            assert await status(port, f"api:{LINK}", network="host") == "200"


@pytest.mark.parametrize(("subnet", "instance"), [(SUBNET, "200"), (ELSEWHERE, "404")])
async def test_link_on_the_public_port_answers_only_instances_and_the_host(image: str, subnet: str, instance: str) -> None:
    async with real_gateway(bridge=BRIDGE, subnet=subnet) as gateway_fixture:
        await published(gateway_fixture, PUBLIC)
        assert await status(PUBLIC, f"api:{PUBLIC}") == instance
        assert await status(PUBLIC, f"api:{PUBLIC}", network="host") == "200"
        assert (await gateway_fixture.ask("/x", Host=f"api:{PUBLIC}")).status == 404, "at another address it is no link"


async def test_files_of_a_version_without_a_subnet_are_adopted_and_rewritten(image: str) -> None:
    async with real_gateway(bridge=BRIDGE, subnet=SUBNET) as gateway_fixture:
        await published(gateway_fixture, LINK)
        assert await status(INNER, "x") == "200"
        older = gateway_fixture.directory / "haproxy.cfg"
        older.write_text(older.read_text().replace(f'"subnet": "{SUBNET}", ', "").replace("tcp-request", "#"))
        assert "subnet" not in older.read_text()
        found = ConfigFiles(gateway_fixture.directory).read()
        assert found is not None
        [wanted] = found[1]
        next_gateway = HaproxyRouter(gateway_fixture.directory)
        try:
            await next_gateway.configure(replace(gateway_fixture.settings, subnet=ELSEWHERE))
            await next_gateway.restore([wanted.service], list(wanted.endpoints.values()))
            assert await status(INNER, "x") == ""
        finally:
            await next_gateway.close()
