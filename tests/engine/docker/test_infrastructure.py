"""Network and gateway container on a real engine: created, adopted, foreign ones left alone."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import pytest
from docker.errors import APIError

from services.engine.docker.codec import HASH, NAME, ROLE
from services.engine.docker.infrastructure import DockerInfrastructure
from services.engine.docker.subnets import free_subnets, host_routes
from services.engine.infrastructure_port import GatewaySpec
from services.engine.port import EngineError
from tests.support.docker_fixture import IMAGE, DockerFixture, build
from tests.support.engine_proxy import EngineProxy

pytestmark = [pytest.mark.anyio, pytest.mark.docker]


@pytest.fixture
def client(docker_fixture: DockerFixture) -> Any:
    return docker_fixture.client


@pytest.fixture
def name(docker_fixture: DockerFixture) -> str:
    """Return a name whose network does not exist yet, unlike the fixture's."""
    return f"{docker_fixture.name}-g"


@pytest.fixture
def infrastructure(client: Any, name: str) -> Iterator[DockerInfrastructure]:
    infrastructure = DockerInfrastructure(name)
    yield infrastructure
    infrastructure.close()
    with suppress(APIError):
        client.remove_container(f"{name}-gateway", v=True, force=True)
    for network in client.networks(names=[name]):
        if network["Name"] == name:
            client.remove_network(network["Id"])


@pytest.fixture
def spec(tmp_path: Path, docker_fixture: DockerFixture) -> GatewaySpec:
    return GatewaySpec(image=IMAGE, directory=str(tmp_path))


def free(client: Any) -> str:
    taken = [IPv4Network(pool["Subnet"]) for network in client.networks() for pool in network["IPAM"]["Config"] or []]
    return str(next(free_subnets([*taken, *host_routes()], 1)))


async def test_network_is_created_once_with_its_own_bridge_address(
    infrastructure: DockerInfrastructure, client: Any, name: str
) -> None:
    footing = await infrastructure.ensure_network(None)
    assert footing == await infrastructure.ensure_network(None) == await infrastructure.ensure_network(footing.subnet)
    found = client.inspect_network(name)
    assert (found["Driver"], found["Labels"]) == ("bridge", {NAME: name})
    assert found["IPAM"]["Config"][0]["Subnet"] == footing.subnet
    assert footing.bridge_address == str(next(IPv4Network(footing.subnet).hosts()))


async def test_concurrent_calls_create_one_network(infrastructure: DockerInfrastructure, client: Any, name: str) -> None:
    footings = await asyncio.gather(*(infrastructure.ensure_network(None) for _ in range(3)))
    made = [network for network in client.networks() if network["Name"] == name]
    assert {footing.subnet for footing in footings} == {network["IPAM"]["Config"][0]["Subnet"] for network in made}
    assert len(made) == 1


async def test_configured_subnet_is_used_and_a_later_change_is_refused(
    infrastructure: DockerInfrastructure, client: Any
) -> None:
    wanted = free(client)
    assert (await infrastructure.ensure_network(wanted)).subnet == wanted
    with pytest.raises(EngineError, match=f"with the subnet {wanted}, but SLUICE_SUBNET is 10.1.0.0/24"):
        await infrastructure.ensure_network("10.1.0.0/24")


async def test_missing_network_gets_its_previous_subnet_or_another_if_that_is_taken(
    infrastructure: DockerInfrastructure, client: Any, name: str, docker_fixture: DockerFixture
) -> None:
    before = await infrastructure.ensure_network(None)
    client.remove_network(name)
    assert await infrastructure.inspect_network() is None
    assert await infrastructure.ensure_network(None, before.subnet) == before
    client.remove_network(name)
    assert (await infrastructure.ensure_network(None, str(docker_fixture.subnet))).subnet != str(docker_fixture.subnet)


async def test_subnet_of_another_network_is_refused(
    infrastructure: DockerInfrastructure, docker_fixture: DockerFixture
) -> None:
    with pytest.raises(EngineError, match="cannot be created"):
        await infrastructure.ensure_network(str(docker_fixture.subnet))


@pytest.mark.parametrize("nonsense", ["10.203.0.0/33", "fd00::/64", "10.0.0.0/30", "lots"])
async def test_invalid_subnet_is_refused(infrastructure: DockerInfrastructure, nonsense: str) -> None:
    with pytest.raises(EngineError, match="is not an IPv4 subnet"):
        await infrastructure.ensure_network(nonsense)


async def test_foreign_network_with_sluices_name_is_left_alone(
    infrastructure: DockerInfrastructure, client: Any, name: str
) -> None:
    made = client.create_network(name, driver="bridge", labels={NAME: "another"})["Id"]
    with pytest.raises(EngineError, match="is not from Sluice; it is left alone"):
        await infrastructure.ensure_network(None)
    assert client.inspect_network(name)["Id"] == made


async def test_container_without_a_fixed_address_gets_one_from_the_end_of_the_subnet(
    infrastructure: DockerInfrastructure, client: Any, name: str
) -> None:
    footing = await infrastructure.ensure_network(None)
    made = client.create_container(IMAGE, name=f"{name}-gateway", host_config=client.create_host_config(network_mode=name))
    client.start(made["Id"])
    address = client.inspect_container(made["Id"])["NetworkSettings"]["Networks"][name]["IPAddress"]
    hosts = [str(host) for host in IPv4Network(footing.subnet).hosts()]
    assert hosts.index(address) > len(hosts) * 0.9


async def test_gateway_container_is_created_once(
    infrastructure: DockerInfrastructure, client: Any, name: str, spec: GatewaySpec
) -> None:
    assert await infrastructure.inspect_gateway() is None
    assert await infrastructure.gateway_log() == ""
    made = await infrastructure.ensure_gateway(spec)
    assert made.running and not made.outdated
    assert made == await infrastructure.ensure_gateway(spec) == await infrastructure.ensure_gateway(spec)
    found = client.inspect_container(f"{name}-gateway")
    host = found["HostConfig"]
    assert (host["NetworkMode"], host["RestartPolicy"]["Name"]) == ("host", "always")
    assert host["Ulimits"] == [{"Name": "nofile", "Soft": 20_000, "Hard": 20_000}]
    assert [(mount["Source"], mount["Destination"]) for mount in found["Mounts"] if mount["Type"] == "bind"] == [
        (spec.directory, "/run/gateway")
    ]
    assert found["Config"]["Labels"].items() >= {NAME: name, ROLE: "gateway"}.items()


async def test_stopped_gateway_is_started(
    infrastructure: DockerInfrastructure, client: Any, name: str, spec: GatewaySpec
) -> None:
    made = await infrastructure.ensure_gateway(spec)
    client.kill(f"{name}-gateway")
    seen = await infrastructure.inspect_gateway()
    assert seen is not None and not seen.running and seen.exit_code == 137
    again = await infrastructure.ensure_gateway(spec)
    assert again.running and again.container_id == made.container_id


async def test_outdated_gateway_is_left_running_and_replaced_once_stopped(
    infrastructure: DockerInfrastructure, client: Any, name: str, spec: GatewaySpec
) -> None:
    made = await infrastructure.ensure_gateway(spec)
    newer = f"{name}:newer"
    build(client, f"FROM {IMAGE}\nENV NEWER=1\n", newer)
    try:
        newer_spec = GatewaySpec(image=newer, directory=spec.directory)
        seen = await infrastructure.ensure_gateway(newer_spec)
        assert seen.running and seen.outdated and seen.container_id == made.container_id
        client.kill(f"{name}-gateway")
        again = await infrastructure.ensure_gateway(newer_spec)
        assert again.running and not again.outdated and again.container_id != made.container_id
    finally:
        client.remove_container(f"{name}-gateway", v=True, force=True)
        client.remove_image(newer)


async def test_running_gateway_with_another_directory_is_refused(
    infrastructure: DockerInfrastructure, spec: GatewaySpec, tmp_path_factory: pytest.TempPathFactory
) -> None:
    made = await infrastructure.ensure_gateway(spec)
    elsewhere = str(tmp_path_factory.mktemp("elsewhere"))
    with pytest.raises(EngineError, match=f"runs with the directory {spec.directory} instead of {elsewhere}"):
        await infrastructure.ensure_gateway(GatewaySpec(image=IMAGE, directory=elsewhere))
    assert (await infrastructure.ensure_gateway(spec)).container_id == made.container_id


async def test_gateway_that_keeps_failing_is_recreated(
    infrastructure: DockerInfrastructure, client: Any, name: str, spec: GatewaySpec
) -> None:
    failing = f"{name}:failing"
    build(client, f'FROM {IMAGE}\nHEALTHCHECK NONE\nENTRYPOINT ["sh", "-c", "echo no luck; exit 3"]\n', failing)
    try:
        made = await infrastructure.ensure_gateway(GatewaySpec(image=failing, directory=spec.directory))
        async with asyncio.timeout(20):
            while True:
                seen = await infrastructure.inspect_gateway()
                assert seen is not None
                if seen.restarts >= 2 and not seen.running:
                    break
        assert seen.exit_code == 3 and "no luck" in await infrastructure.gateway_log()
        again = await infrastructure.ensure_gateway(spec)
        assert again.running and again.container_id != made.container_id
    finally:
        client.remove_container(f"{name}-gateway", v=True, force=True)
        client.remove_image(failing)


@pytest.mark.parametrize("labels", [{}, {ROLE: "gateway", NAME: "another", HASH: "x"}, {ROLE: "sluice"}])
async def test_foreign_container_with_the_gateways_name_is_left_alone(
    infrastructure: DockerInfrastructure, client: Any, name: str, spec: GatewaySpec, labels: dict[str, str]
) -> None:
    made = client.create_container(IMAGE, name=f"{name}-gateway", labels=labels)["Id"]
    for ask in (lambda: infrastructure.ensure_gateway(spec), infrastructure.inspect_gateway, infrastructure.gateway_log):
        with pytest.raises(EngineError, match="is not from Sluice; it is left alone"):
            await ask()
    assert client.inspect_container(made)["State"]["Status"] == "created"


async def test_missing_gateway_image_fails_with_the_command_that_builds_it(
    infrastructure: DockerInfrastructure, spec: GatewaySpec
) -> None:
    with pytest.raises(EngineError, match='"sluice-test/none:1" not found; build it with "make images"'):
        await infrastructure.ensure_gateway(GatewaySpec(image="sluice-test/none:1", directory=spec.directory))


async def test_unreachable_engine_is_a_transient_error(tmp_path: Path) -> None:
    async with EngineProxy(tmp_path / "engine.sock") as door:
        door.slam()
        infrastructure = DockerInfrastructure("sluice-test", base_url=door.base_url)
        with pytest.raises(EngineError) as refused:
            await infrastructure.ensure_network(None)
        assert refused.value.transient
        infrastructure.close()
