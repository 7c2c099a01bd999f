"""States of services: a table of facts, the precedence, and the facts as the store has them."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from pathlib import Path

import pytest

from services.rollouts.state.operational_state import (
    FAILURES,
    PROBLEMS,
    UNFINISHED,
    OperationalState,
    ServiceFacts,
    service_state,
)
from services.rollouts.state.runtime_status import CRASH_LOOPING, RuntimeStatus
from services.rollouts.state.service_facts import read_facts, read_states
from services.rollouts.state.status import Status
from services.store.tables import Deployment, Instance, Service
from tests.support.dashboard_fixture import DashboardFixture

S, State = Status, OperationalState
ROLLING_OUT = frozenset({S.PROGRESSING})


@pytest.mark.parametrize(
    ("facts", "state"),
    [
        (ServiceFacts(desired=2), State.DOWN),
        (ServiceFacts(desired=2, unhealthy=2), State.DOWN),
        (ServiceFacts(desired=2, unfinished=ROLLING_OUT), State.DOWN),
        (ServiceFacts(desired=2, crash_looping=True, last_result=S.FAILED), State.DOWN),
        (ServiceFacts(desired=3, serving=2, unhealthy=1), State.UNHEALTHY),
        (ServiceFacts(desired=3, serving=2), State.UNHEALTHY),
        (ServiceFacts(desired=3, serving=2, unfinished=frozenset({S.PENDING})), State.UNHEALTHY),
        (ServiceFacts(desired=3, serving=2, unhealthy=1, unfinished=ROLLING_OUT), State.UNHEALTHY),
        (ServiceFacts(desired=3, serving=2, unfinished=ROLLING_OUT), State.DEPLOYING),
        (ServiceFacts(desired=3, serving=3, unhealthy=1), State.SERVING),
        (ServiceFacts(desired=3, serving=3, crash_looping=True), State.CRASH_LOOPING),
        (ServiceFacts(desired=3, serving=3, crash_looping=True, unfinished=frozenset({S.PAUSED})), State.CRASH_LOOPING),
        (ServiceFacts(desired=0, crash_looping=True), State.STOPPED),
        (ServiceFacts(desired=3, serving=3, unfinished=frozenset({S.PAUSED})), State.PAUSED),
        (ServiceFacts(desired=3, serving=2, unfinished=frozenset({S.PAUSED})), State.PAUSED),
        (ServiceFacts(desired=3, serving=3, unfinished=frozenset({S.PAUSED, S.PENDING})), State.PAUSED),
        (ServiceFacts(desired=3, serving=3, last_result=S.FAILED), State.DEPLOYMENT_FAILED),
        (ServiceFacts(desired=3, serving=3, last_result=S.ROLLED_BACK), State.DEPLOYMENT_FAILED),
        (ServiceFacts(desired=3, serving=3, last_result=S.ROLLBACK_FAILED), State.DEPLOYMENT_FAILED),
        (ServiceFacts(desired=0, last_result=S.FAILED), State.DEPLOYMENT_FAILED),
        (ServiceFacts(desired=3, serving=3, last_result=S.FAILED, unfinished=ROLLING_OUT), State.DEPLOYING),
        (ServiceFacts(desired=3, serving=3, unfinished=frozenset({S.ROLLING_BACK})), State.DEPLOYING),
        (ServiceFacts(desired=0, unfinished=frozenset({S.PENDING})), State.DEPLOYING),
        (ServiceFacts(desired=3, serving=3, last_result=S.SUCCEEDED), State.SERVING),
        (ServiceFacts(desired=3, serving=4), State.SERVING),
        (ServiceFacts(desired=0, serving=1), State.SERVING),
        (ServiceFacts(desired=0, last_result=S.SUCCEEDED), State.STOPPED),
        (ServiceFacts(desired=0), State.STOPPED),
    ],
)
def test_state_is_the_first_that_holds(facts: ServiceFacts, state: OperationalState) -> None:
    assert service_state(facts) == state


def test_serving_state_means_that_all_desired_instances_serve_and_nothing_is_wrong() -> None:
    statuses = [frozenset[str](), *(frozenset({status}) for status in UNFINISHED)]
    results = (None, S.SUCCEEDED, *FAILURES)
    for desired, serving, unhealthy, unfinished, result, looping in product(
        range(3), range(3), range(2), statuses, results, (False, True)
    ):
        state = service_state(ServiceFacts(desired, serving, unhealthy, unfinished, result, looping))
        if state == State.SERVING:
            assert serving >= desired
            assert not unfinished
            assert result not in FAILURES
        assert (state == State.DOWN) == (desired > 0 == serving)
        assert (state == State.STOPPED) <= (serving == 0)


def test_problems_are_the_states_that_need_a_person() -> None:
    assert PROBLEMS == ("down", "unhealthy", "crash_looping", "paused", "deployment_failed")


@pytest.fixture
def fixture(tmp_path: Path) -> Iterator[DashboardFixture]:
    made = DashboardFixture(tmp_path)
    made.service("web", 3)
    yield made
    made.close()


def test_a_change_of_warnings_is_reported_once() -> None:
    status = RuntimeStatus()
    changes = [status.set_warnings("web", warnings) for warnings in ([], [CRASH_LOOPING], [CRASH_LOOPING], [])]
    assert changes == [False, True, False, True]
    assert status.crash_looping() == frozenset()


def state(fixture: DashboardFixture, *crash_looping: str) -> OperationalState:
    with fixture.sluice.store.read_session() as session:
        return read_states(session, ["web", "absent"], crash_looping)["web"]


def ended(fixture: DashboardFixture, status: str) -> None:
    """Add a deployment of `web` that ended."""
    fixture.write(
        lambda session: session.add(Deployment(service="web", kind="deploy", status=status, created_at=1.0, finished_at=2.0))
    )


def test_facts_count_healthy_instances_that_are_not_leaving(fixture: DashboardFixture) -> None:
    assert state(fixture) == State.SERVING
    fixture.change(Instance, "web-r1-1", status="unhealthy", unhealthy_since=1.0)
    fixture.change(Instance, "web-r1-2", leaving_at=1.0)
    with fixture.sluice.store.read_session() as session:
        assert read_facts(session, ["web"], ())["web"] == ServiceFacts(desired=3, serving=1, unhealthy=1)
    assert state(fixture) == State.UNHEALTHY
    fixture.change(Instance, "web-r1-3", status="unhealthy", unhealthy_since=1.0)
    assert state(fixture, "web") == State.DOWN


def test_services_without_a_revision_desire_no_instances(fixture: DashboardFixture) -> None:
    fixture.change(Service, "web", revision=None)
    for slot in (1, 2, 3):
        fixture.change(Instance, f"web-r1-{slot}", status="failed")
    assert state(fixture, "web") == State.STOPPED


def test_failed_deployment_determines_the_state_until_a_newer_one_succeeds(fixture: DashboardFixture) -> None:
    ended(fixture, "succeeded")
    assert state(fixture) == State.SERVING
    ended(fixture, "rolled_back")
    assert state(fixture) == State.DEPLOYMENT_FAILED
    ended(fixture, "aborted")
    ended(fixture, "superseded")
    assert state(fixture) == State.DEPLOYMENT_FAILED
    number = fixture.deployment("web", status="paused")
    assert state(fixture) == State.PAUSED
    fixture.change(Deployment, number, status="progressing")
    assert state(fixture) == State.DEPLOYING
    fixture.change(Deployment, number, status="succeeded")
    assert state(fixture) == State.SERVING
    assert state(fixture, "web") == State.CRASH_LOOPING
