"""Unchanged Spring applications on Sluice's registry, redeployed under load.

Requests come through Spring Cloud Gateway. The tests share one stack and build on each other,
since a JVM costs ten seconds of a core.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from services.loadtest.request_log import RequestLog
from tests.support.docker_cli import gateway
from tests.support.service_fixture import Json
from tests.support.sluice_process import SluiceProcess
from tests.support.spring_stack import QUICK, QUICK_CACHES, REST_CLIENT, TALKATIVE, Spring, ask, leases

pytestmark = [pytest.mark.anyio, pytest.mark.docker, pytest.mark.slow, pytest.mark.spring]
SERVICE = {"replicas": 2, "environment": {**REST_CLIENT, **QUICK, **TALKATIVE}}


@pytest.fixture(scope="module")
def sluice(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SluiceProcess]:
    settings = {"SLUICE_GATEWAY_IMAGE": gateway(), "SLUICE_EUREKA_ALIASES": "sample-eureka"}
    with SluiceProcess(tmp_path_factory.mktemp("sluice"), **settings) as made:
        yield made


@pytest.fixture(scope="module")
async def running(sluice: SluiceProcess) -> None:
    """Deploy two instances of the service (registered by RestClient) and a gateway (by RestTemplate).

    The gateway's caches have their default durations.
    """
    async with sluice.client() as http:
        spring = Spring(sluice, http, "")
        await spring.deploy_file("service", **SERVICE, profile="prod")
        await spring.deploy_file("gateway", replicas=1, environment=TALKATIVE)


@pytest.fixture
async def spring(sluice: SluiceProcess, running: None) -> AsyncIterator[Spring]:
    async with sluice.client() as http:
        yield Spring(sluice, http, f"{sluice.gateway}/spring")


def answered_by(request_log: RequestLog, phase: str) -> set[str]:
    return {entry.version for entry in request_log.entries if entry.phase == phase}


async def registered(spring: Spring) -> set[str]:
    """Return the instances of the service that Sluice's registry shows.

    Spring's ids begin with the host name, which Sluice sets to the instance's id.
    """
    config = "{{(index .IPAM.Config 0).Gateway}}"
    address = await spring.docker("network", "inspect", spring.sluice.name, "--format", config)
    return {id.partition(":")[0] for id in await leases(f"http://{address}:8761/direct/eureka/")}


def instance_of(container: Json) -> str:
    return str(container["Config"]["Labels"]["sluice.instance"])


async def test_applications_register_and_discover_each_other_with_either_http_client(spring: Spring) -> None:
    one, other = await spring.containers()
    where = one["NetworkSettings"]["Networks"][spring.sluice.name]["IPAddress"]
    for actuator, transport, sees in (
        (f"http://{where}:8080", "restClient", {"SAMPLE-SERVICE", "SAMPLE-GATEWAY"}),
        (spring.door, "restTemplate", {"SAMPLE-SERVICE"}),  # The gateway discovers its own registration half a minute later.
    ):
        beans = (await ask(f"{actuator}/actuator/beans"))["contexts"]
        assert any(f"{transport}DiscoveryClientOptionalArgs" in context["beans"] for context in beans.values())

        async def seen(actuator: str = actuator, sees: set[str] = sees) -> bool:
            parts = (await ask(f"{actuator}/actuator/health"))["components"]["discoveryComposite"]["components"]
            return sees <= set(parts["eureka"]["details"]["applications"])

        await spring.until(seen)
    assert await registered(spring) == {instance_of(one), instance_of(other)}


async def test_deployment_with_advertise_stable_loses_no_request(spring: Spring) -> None:
    async with spring.traffic() as load:
        load.mark("deploy")
        await spring.deploy_file("service", **SERVICE, profile="local")
        load.mark("after")
        await load.until(lambda request_log: len(answered_by(request_log, "after")) > 0)
    assert answered_by(load.request_log, "before") == {"1"}
    assert answered_by(load.request_log, "after") == {"2"}


@pytest.mark.full
async def test_instance_death_with_advertise_stable_loses_no_get(spring: Spring) -> None:
    victim = (await spring.containers())[0]
    async with spring.traffic(posts=0) as load:
        await load.until(lambda request_log: len(request_log.versions()) == 2)
        load.mark("killed")
        await spring.docker("kill", victim["Id"])

        async def out() -> bool:
            return instance_of(victim) not in await registered(spring)

        await spring.until(out)
        load.mark("out")
        await load.until(lambda request_log: sum(request_log.versions("out").values()) >= 40)
    assert instance_of(victim) not in load.request_log.versions("out")


@pytest.mark.full
async def test_spring_cloud_gateway_is_redeployed_under_load(spring: Spring) -> None:
    async with spring.traffic() as load:
        load.mark("deploy")
        await spring.deploy_file("gateway", replicas=1, environment=QUICK_CACHES)
        load.mark("after")
        await load.until(lambda request_log: sum(request_log.versions("after").values()) >= 40)


@pytest.mark.full
async def test_deployment_with_advertise_instances_waits_for_consumers_and_loses_nothing(spring: Spring) -> None:
    reported = {"advertise": "instances", "consumer_cache": 2}
    await spring.deploy_file("service", **SERVICE, profile="local", **reported)
    async with spring.traffic() as load:
        load.mark("deploy")
        deployment = await spring.begin_file("service", **SERVICE, profile="prod", **reported)
        await spring.says(deployment, "consumers of the registry")
        await spring.finished(deployment)
        load.mark("after")
        await load.until(lambda request_log: len(answered_by(request_log, "after")) > 0)
    assert answered_by(load.request_log, "before") == {"2"}
    assert answered_by(load.request_log, "after") == {"1"}
