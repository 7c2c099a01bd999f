"""Links and publications that the routers refuse fail the deployment that requests them, and no other."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from services.rollouts.requests import commands
from services.rollouts.requests.command import DeployRequest
from services.routing.port import RoutedService, RoutingError
from services.store.tables import Deployment
from tests.support.controller_simulation import CHECK, SERVICE, ControllerSimulation
from tests.support.controller_stories import RunScenario, deployment, until

TAKEN = "10.203.0.1:8000 is in use on this machine"


async def deploy(simulation: ControllerSimulation, service: str, image: str = "web:1", **fields: Any) -> int | None:
    body = {"image": image, "healthcheck": CHECK, "progress_deadline_seconds": 60, "port": 8000, **fields}
    return await simulation.submit(commands.deploy(DeployRequest(service, body)))


class Refusing:
    """Gateway that refuses to publish the services in `refused`: if linked, or always with `wholly`."""

    def __init__(
        self,
        simulation: ControllerSimulation,
        monkeypatch: pytest.MonkeyPatch,
        *,
        wholly: bool = False,
        lasting: bool = True,
    ) -> None:
        self.refused: set[str] = set()
        self.asked = 0
        publish = simulation.gateway.publish

        async def refuse(service: RoutedService) -> None:
            if service.name in self.refused and (wholly or service.linked):
                self.asked += 1
                raise RoutingError(TAKEN, lasting=lasting)
            await publish(service)

        monkeypatch.setattr(simulation.gateway, "publish", refuse)


@pytest.mark.parametrize("lasting", [True, False])
def test_unservable_link_fails_deployment_that_requests_it(
    run_scenario: RunScenario, monkeypatch: pytest.MonkeyPatch, lasting: bool
) -> None:
    async def scenario(simulation: ControllerSimulation) -> None:
        refusing = Refusing(simulation, monkeypatch, lasting=lasting)
        await until(simulation, await deploy(simulation, "api"))
        await until(simulation, await deploy(simulation, SERVICE))
        refusing.refused = {"api"}
        row = await until(simulation, await deploy(simulation, SERVICE, links=["api"]), within=10 if lasting else 60)
        assert (row.status, row.reason) == ("rolled_back", "gateway_unverified")
        assert f"the link to api: {TAKEN}" in row.message
        assert simulation.gateway.services["api"].linked is False
        first = await until(simulation, await deploy(simulation, "first", links=["api"]), within=10 if lasting else 60)
        assert (first.status, first.reason) == ("failed", "gateway_unverified")

    run_scenario(scenario)


def test_link_succeeds_in_next_deployment_once_servable(run_scenario: RunScenario, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(simulation: ControllerSimulation) -> None:
        refusing = Refusing(simulation, monkeypatch)
        await until(simulation, await deploy(simulation, "api"))
        refusing.refused = {"api"}
        await until(simulation, await deploy(simulation, SERVICE, links=["api"]), "failed")
        refusing.refused = set()
        await until(simulation, await deploy(simulation, SERVICE, links=["api"]), "succeeded")
        assert simulation.gateway.services["api"].linked is True

    run_scenario(scenario)


def test_unservable_link_fails_deployment_of_zero_replicas(
    run_scenario: RunScenario, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(simulation: ControllerSimulation) -> None:
        refusing = Refusing(simulation, monkeypatch)
        await until(simulation, await deploy(simulation, "api"))
        refusing.refused = {"api"}
        row = await until(simulation, await deploy(simulation, SERVICE, links=["api"], replicas=0))
        assert (row.status, row.reason) == ("failed", "gateway_unverified")

    run_scenario(scenario)


def test_unservable_link_does_not_affect_deployments_of_its_target(
    run_scenario: RunScenario, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(simulation: ControllerSimulation) -> None:
        refusing = Refusing(simulation, monkeypatch)
        await until(simulation, await deploy(simulation, "api"))
        refusing.refused = {"api"}
        asking = await deploy(simulation, SERVICE, links=["api"], failure_action="pause")
        await until(simulation, asking, "paused")
        other = await until(simulation, await deploy(simulation, "api", "web:2"))
        assert (other.status, deployment(simulation, asking).status) == ("succeeded", "paused")
        assert refusing.asked > 1
        await until(simulation, await simulation.submit(commands.scale("api", 3)), "succeeded")
        assert len([id for id in simulation.gateway.present.servers if id.startswith("api-")]) == 3

    run_scenario(scenario)


def test_links_to_missing_or_portless_services_are_not_waited_for(run_scenario: RunScenario) -> None:
    async def scenario(simulation: ControllerSimulation) -> None:
        await until(simulation, await deploy(simulation, "worker", port=None))
        await until(simulation, await deploy(simulation, SERVICE, links=["worker", "later"]), "succeeded")

    run_scenario(scenario)


@pytest.mark.parametrize("lasting", [True, False])
def test_route_change_refused_by_gateway_fails_and_is_rolled_back(
    run_scenario: RunScenario, monkeypatch: pytest.MonkeyPatch, lasting: bool
) -> None:
    """The change replaces no instance, so the plan alone would succeed at once."""

    async def scenario(simulation: ControllerSimulation) -> None:
        refusing = Refusing(simulation, monkeypatch, wholly=True, lasting=lasting)
        await until(simulation, await deploy(simulation, SERVICE))
        refusing.refused = {SERVICE}
        row = await until(simulation, await deploy(simulation, SERVICE, routes=[{"path_prefix": "/new"}]), within=60)
        assert (row.status, row.reason) == ("rolled_back", "gateway_unverified")
        assert simulation.gateway.services[SERVICE].routes == ()
        refusing.refused = set()
        await until(simulation, await deploy(simulation, SERVICE, routes=[{"path_prefix": "/new"}]), "succeeded")

    run_scenario(scenario)


def test_linked_service_fails_when_its_first_publication_is_refused(
    run_scenario: RunScenario, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(simulation: ControllerSimulation) -> None:
        refusing = Refusing(simulation, monkeypatch)
        await until(simulation, await deploy(simulation, SERVICE, links=["api"]), "succeeded")
        refusing.refused = {"api"}
        row = await until(simulation, await deploy(simulation, "api"), within=10)
        assert (row.status, row.reason) == ("failed", "gateway_unverified")
        assert [each.status for each in simulation.rows(Deployment) if each.service == SERVICE] == ["succeeded"]

    run_scenario(scenario)


def test_past_router_error_does_not_fail_deployment_with_long_drain(run_scenario: RunScenario) -> None:
    async def scenario(simulation: ControllerSimulation) -> None:
        await until(simulation, await deploy(simulation, SERVICE, drain_timeout=120))
        simulation.gateway.fail_next("withdraw")
        simulation.busy(f"{SERVICE}-r1-1", 50)
        id = await deploy(simulation, SERVICE, "web:2", drain_timeout=120)
        await asyncio.sleep(40)
        assert deployment(simulation, id).status == "progressing"
        await until(simulation, id, "succeeded")

    run_scenario(scenario)
