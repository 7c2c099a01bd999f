"""A stock Eureka server and an external gateway: Sluice changes only its own leases there."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

import httpx
import pytest

from tests.support.docker_cli import docker, gateway
from tests.support.sluice_process import SluiceProcess, free_port
from tests.support.spring_stack import QUICK, QUICK_CACHES, Spring, ask, leases

pytestmark = [pytest.mark.anyio, pytest.mark.docker, pytest.mark.slow, pytest.mark.full, pytest.mark.spring]
HEARTBEATS = 5
"""Heartbeats of the remaining instance to wait for, one a second.

A lease that the server's replication brings back appears within that time.
"""


@dataclass(frozen=True)
class ExternalContainers:
    """The external containers' URLs, as Sluice and the tests reach them."""

    eureka: str
    gateway: str


@pytest.fixture(scope="module")
def sluice(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SluiceProcess]:
    with SluiceProcess(
        tmp_path_factory.mktemp("sluice"), SLUICE_GATEWAY_IMAGE=gateway(), SLUICE_EUREKA_SERVERS="127.0.0.1"
    ) as made:
        yield made


@pytest.fixture(scope="module")
def external_containers(sluice: SluiceProcess) -> Iterator[ExternalContainers]:
    """Run a Eureka server and a gateway, with caches of one second.

    The server has a host name of its own, so that it is its own peer, as most servers are.
    """
    network = f"{sluice.name}-theirs"
    docker("network", "create", network)
    made = []

    def start(name: str, inside: int, **environment: str) -> str:
        port, reported = free_port(), {"SERVER_PORT": str(inside), **environment}
        made.append(f"{network}-{name}")
        docker(
            "run", "--detach", "--name", made[-1], "--network", network, "--network-alias", name,
            "--publish", f"127.0.0.1:{port}:{inside}", *(f"--env={key}={value}" for key, value in reported.items()),
            f"{name.replace('eureka', 'discovery')}:1",
        )  # fmt: skip
        docker("network", "connect", "--alias", name, sluice.name, made[-1])
        return f"http://127.0.0.1:{port}"

    try:
        server = start(
            "sample-eureka", 8761,
            EUREKA_INSTANCE_HOSTNAME="sample-eureka", EUREKA_SERVER_RESPONSE_CACHE_UPDATE_INTERVAL_MS="1000",
        )  # fmt: skip
        yield ExternalContainers(f"{server}/eureka/", start("sample-gateway", 8080, **QUICK_CACHES))
    finally:
        docker("rm", "--force", *made)
        docker("network", "rm", network)


@pytest.fixture
async def spring(sluice: SluiceProcess, external_containers: ExternalContainers) -> AsyncIterator[Spring]:
    async with sluice.client() as http:
        yield Spring(sluice, http, external_containers.gateway)


async def test_deployment_with_external_eureka_is_aborted_repeated_and_loses_nothing(
    spring: Spring, external_containers: ExternalContainers
) -> None:
    file = {
        "replicas": 1,
        "environment": QUICK,
        "eureka": {"url": external_containers.eureka, "consumer_staleness": 8},
    }
    await spring.until(lambda: up(external_containers.eureka), within=120)
    await spring.deploy_file("service", **file, profile="prod")
    old = "sample-service-r1-1"

    async def is_there(status: str) -> bool:
        found = (await leases(external_containers.eureka)).get(old)
        return found is not None and found["status"] == status

    await spring.until(lambda: is_there("UP"))  # The first instance of a service is available before the server lists it.

    async with spring.traffic() as load:
        load.mark("abort")
        given_up = await spring.begin_file("service", **file, profile="local")
        await spring.until(lambda: is_there("OUT_OF_SERVICE"), within=120)
        await spring.says(given_up, "consumer_staleness")
        await spring.act(given_up, "abort")
        await spring.until(lambda: is_there("UP"))
        await spring.finished(given_up, expect="aborted")
        load.mark("deploy")
        await spring.deploy_file("service", **file, profile="local")
        load.mark("after")
        await load.until(lambda request_log: sum(request_log.versions("after").values()) >= 40)
        await alone(spring, external_containers.eureka, "sample-service-r3-1")
    assert {entry.version for entry in load.request_log.entries if entry.phase == "after"} == {"2"}


async def up(eureka: str) -> bool:
    try:
        await ask(f"{eureka}apps/")
    except httpx.HTTPError:
        return False
    return True


async def alone(spring: Spring, eureka: str, instance: str) -> None:
    """Wait until the instance is the only one listed for HEARTBEATS renewals.

    A lease that comes back is deleted again.
    """
    heard: set[int] = set()

    async def often() -> bool:
        listed = await leases(eureka)
        if set(listed) != {instance}:
            assert [id for id, lease in listed.items() if lease["status"] == "UP"] == [instance]
            heard.clear()
        lease = (await ask(f"{eureka}instances/{instance}"))["instance"]["leaseInfo"]
        heard.add(lease["lastRenewalTimestamp"])
        return len(heard) > HEARTBEATS

    await spring.until(often, within=100)
