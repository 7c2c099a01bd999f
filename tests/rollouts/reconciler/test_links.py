"""Stories of links and publications that the routers refuse: the deployment that asks for them fails, and no other."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from services.rollouts.requests.submit import DeployRequest
from services.routing.port import RoutedService, RoutingError
from services.store.tables import Deployment
from tests.rollouts.reconciler.test_stories import Tell, deployment, tell, until
from tests.support.controller_simulation import CHECK, CI, SERVICE, ControllerSimulation

__all__ = ["tell"]
TAKEN = "10.203.0.1:8000 is in use on this machine"


async def deploy(simulation: ControllerSimulation, service: str, image: str = "web:1", **fields: Any) -> int | None:
    body = {"image": image, "healthcheck": CHECK, "progress_deadline_seconds": 60, "port": 8000, **fields}
    return await simulation.ask(lambda requests: requests.deploy(DeployRequest(service, body), CI))


class Refusing:
    """`refused`: services whose publication fails while others link to them, or (`wholly`) in any case."""

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
def test_a_link_that_the_gateway_cannot_serve_fails_the_deployment_that_asks_for_it(
    tell: Tell, monkeypatch: pytest.MonkeyPatch, lasting: bool
) -> None:
    async def story(simulation: ControllerSimulation) -> None:
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

    tell(story)


def test_a_link_is_asked_for_again_once_it_can_be_served(tell: Tell, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(simulation: ControllerSimulation) -> None:
        refusing = Refusing(simulation, monkeypatch)
        await until(simulation, await deploy(simulation, "api"))
        refusing.refused = {"api"}
        await until(simulation, await deploy(simulation, SERVICE, links=["api"]), "failed")
        refusing.refused = set()
        await until(simulation, await deploy(simulation, SERVICE, links=["api"]), "succeeded")
        assert simulation.gateway.services["api"].linked is True

    tell(story)


def test_a_link_with_no_instance_to_wait_for_is_not_done_before_it_is_served(
    tell: Tell, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(simulation: ControllerSimulation) -> None:
        refusing = Refusing(simulation, monkeypatch)
        await until(simulation, await deploy(simulation, "api"))
        refusing.refused = {"api"}
        row = await until(simulation, await deploy(simulation, SERVICE, links=["api"], replicas=0))
        assert (row.status, row.reason) == ("failed", "gateway_unverified")

    tell(story)


def test_a_link_that_cannot_be_served_harms_no_deployment_of_its_target(tell: Tell, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(simulation: ControllerSimulation) -> None:
        refusing = Refusing(simulation, monkeypatch)
        await until(simulation, await deploy(simulation, "api"))
        refusing.refused = {"api"}
        asking = await deploy(simulation, SERVICE, links=["api"], failure_action="pause")
        await until(simulation, asking, "paused")
        other = await until(simulation, await deploy(simulation, "api", "web:2"))
        assert (other.status, deployment(simulation, asking).status) == ("succeeded", "paused")
        assert refusing.asked > 1
        await until(simulation, await simulation.ask(lambda requests: requests.scale("api", 3, CI)), "succeeded")
        assert len([id for id in simulation.gateway.present.servers if id.startswith("api-")]) == 3

    tell(story)


def test_links_to_what_is_not_there_or_has_no_port_are_not_waited_for(tell: Tell) -> None:
    async def story(simulation: ControllerSimulation) -> None:
        await until(simulation, await deploy(simulation, "worker", port=None))
        await until(simulation, await deploy(simulation, SERVICE, links=["worker", "later"]), "succeeded")

    tell(story)


@pytest.mark.parametrize("lasting", [True, False])
def test_a_change_of_routes_that_the_gateway_refuses_fails_and_is_taken_back(
    tell: Tell, monkeypatch: pytest.MonkeyPatch, lasting: bool
) -> None:
    """No instance is replaced for it: the plan alone would be done at once."""

    async def story(simulation: ControllerSimulation) -> None:
        refusing = Refusing(simulation, monkeypatch, wholly=True, lasting=lasting)
        await until(simulation, await deploy(simulation, SERVICE))
        refusing.refused = {SERVICE}
        row = await until(simulation, await deploy(simulation, SERVICE, routes=[{"path_prefix": "/new"}]), within=60)
        assert (row.status, row.reason) == ("rolled_back", "gateway_unverified")
        assert simulation.gateway.services[SERVICE].routes == ()
        refusing.refused = set()
        await until(simulation, await deploy(simulation, SERVICE, routes=[{"path_prefix": "/new"}]), "succeeded")

    tell(story)


def test_a_linked_service_whose_own_first_publication_is_refused_fails(tell: Tell, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(simulation: ControllerSimulation) -> None:
        refusing = Refusing(simulation, monkeypatch)
        await until(simulation, await deploy(simulation, SERVICE, links=["api"]), "succeeded")
        refusing.refused = {"api"}
        row = await until(simulation, await deploy(simulation, "api"), within=10)
        assert (row.status, row.reason) == ("failed", "gateway_unverified")
        assert [each.status for each in simulation.rows(Deployment) if each.service == SERVICE] == ["succeeded"]

    tell(story)


def test_one_refusal_long_ago_does_not_fail_a_deployment_that_drains_for_long(tell: Tell) -> None:
    async def story(simulation: ControllerSimulation) -> None:
        await until(simulation, await deploy(simulation, SERVICE, drain_timeout=120))
        simulation.gateway.fail_next("withdraw")
        simulation.busy(f"{SERVICE}-r1-1", 50)
        id = await deploy(simulation, SERVICE, "web:2", drain_timeout=120)
        await asyncio.sleep(40)
        assert deployment(simulation, id).status == "progressing"
        await until(simulation, id, "succeeded")

    tell(story)
