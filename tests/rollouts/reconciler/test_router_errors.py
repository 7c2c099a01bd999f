"""Errors of routers count against a deployment once they have lasted too long."""

from __future__ import annotations

import asyncio

from services.rollouts.planner.steps import Admit, Start, Stop, Withdraw
from services.rollouts.reconciler.operations import PUBLICATION, ExecuteStep, FetchLogTail, Operation, is_routed
from services.rollouts.reconciler.router_errors import ROUTER_ERROR_TIMEOUT, RouterErrors
from services.rollouts.reconciler.service_state import ServiceState
from services.rollouts.requests import commands
from services.routing.port import RoutingError
from services.store.tables import Instance, Revision
from tests.support.controller_simulation import SERVICE, ControllerSimulation
from tests.support.controller_stories import RunScenario, until

ROW = Instance(
    id="web-r1-2", service="web", revision=1, deployment=1, slot=2, address="10.0.0.2", port=8000, hash="1", created_at=0
)
REVISION = Revision(
    service="web", number=1, image="web:1", image_id="1", port=8000, hash="1", deployment=1, effective={}, created_at=0
)


def test_error_persists_after_the_timeout_since_its_first_occurrence() -> None:
    errors = RouterErrors()
    errors.record("web-r1-1", 100, RoutingError("first"))
    errors.record("web-r1-1", 120, RoutingError("second"))
    assert errors.of_instances(100 + ROUTER_ERROR_TIMEOUT - 1) is None
    assert errors.of_instances(100 + ROUTER_ERROR_TIMEOUT) == "second"
    assert errors.of_publication(200) is None


def test_lasting_error_persists_at_once() -> None:
    errors = RouterErrors()
    errors.record(PUBLICATION, 100, RoutingError("in use", lasting=True))
    assert (errors.of_publication(100), errors.of_instances(100)) == ("in use", None)


def test_success_and_removal_of_the_instance_clear_its_error() -> None:
    errors = RouterErrors()
    for key in (PUBLICATION, "web-r1-1", "web-r1-2"):
        errors.record(key, 0, RoutingError(key, lasting=True))
    errors.clear("web-r1-1")
    assert errors.of_instances(0) == "web-r1-2"
    errors.retain({"web-r1-1"})
    assert (errors.of_instances(0), errors.of_publication(0)) == (None, PUBLICATION)


def test_error_ends_with_any_later_operation_that_the_routers_do(run_scenario: RunScenario) -> None:
    async def scenario(simulation: ControllerSimulation) -> None:
        body = {"healthcheck": {"disable": True}, "port": 8000}
        await until(simulation, await simulation.deploy("web:1", replicas=3, **body), "succeeded")
        simulation.gateway.fail_next("withdraw", "did not answer 'show' within 5 s", times=2)
        await until(simulation, await simulation.submit(commands.scale(SERVICE, 1)), "succeeded")
        simulation.gateway.fail_next("admit", "did not answer 'show' within 5 s", done=True)
        await asyncio.sleep(ROUTER_ERROR_TIMEOUT + 10)
        ended = await until(simulation, await simulation.deploy("web:2", replicas=1, **body))
        assert (ended.status, ended.reason) == ("succeeded", None)
        assert simulation.runner._states[SERVICE].router_errors == RouterErrors()

    run_scenario(scenario)


def test_only_an_operation_that_the_routers_do_clears_the_errors_of_the_others() -> None:
    state = ServiceState()
    state.router_errors.record("web-r1-1", 0, RoutingError("did not answer", lasting=True))
    others: list[Operation] = [FetchLogTail(ROW, REVISION), ExecuteStep(Start(ROW.id), ROW, REVISION, None)]
    routed: list[Operation] = [
        ExecuteStep(step, ROW, REVISION, None) for step in (Admit(ROW.id), Withdraw(ROW.id), Stop(ROW.id))
    ]
    assert [is_routed(operation) for operation in (*others, *routed)] == [False] * 2 + [True] * 3
    state.operation_succeeded("web-r1-2", routed=False)
    assert state.router_errors.of_instances(0) == "did not answer"
    state.operation_succeeded("web-r1-2", routed=True)
    assert state.router_errors.of_instances(0) is None
