"""A dry run of the planner lists, reconcile by reconcile, the steps of a rollout without faults."""

from __future__ import annotations

from itertools import count
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.rollouts.planner.desired import DesiredState
from services.rollouts.planner.observed import ObservedInstance
from services.rollouts.planner.simulate import simulate
from tests.support.builders import NOW, dead, instance, ready, serving, sick, starting, steady, to


def told(target: DesiredState, *observed: ObservedInstance, routed: bool = True) -> list[str]:
    """Return the simulated steps as `1 start new-r-1`: the reconcile's number, the action, the instance."""
    steps = simulate(target, observed, NOW, (f"new-r-{n}" for n in count(1)), routed)
    return [f"{step.turn} {step.action} {step.instance}" for step in steps]


def test_first_deployment_starts_and_admits() -> None:
    assert told(to(2)) == ["1 start new-r-1", "1 start new-r-2", "2 admit new-r-1", "2 admit new-r-2"]


def test_new_revision_serves_before_old_one_is_withdrawn() -> None:
    assert told(to(1), serving("old-1")) == [
        "1 start new-r-1", "2 admit new-r-1", "3 withdraw old-1", "4 stop old-1", "5 remove old-1",
    ]  # fmt: skip


def test_surge_of_one_replaces_one_instance_at_a_time() -> None:
    steps = told(to(2, max_surge=1), serving("old-1"), serving("old-2"))
    order = [step.split(" ", 1)[1] for step in steps]
    assert order.index("admit new-r-1") < order.index("withdraw old-2") < order.index("start new-r-2")
    assert order.index("admit new-r-2") < order.index("withdraw old-1")


def test_recreate_removes_old_instances_first() -> None:
    steps = told(to(1, strategy="recreate"), serving("old-1"))
    assert [step.split(" ", 1)[1] for step in steps] == [
        "withdraw old-1", "stop old-1", "remove old-1", "start new-r-1", "admit new-r-1",
    ]  # fmt: skip


def test_removal_withdraws_stops_and_removes() -> None:
    assert told(to(0), serving("old-1")) == ["1 withdraw old-1", "2 stop old-1", "3 remove old-1"]


def test_worker_is_stopped_without_withdrawal() -> None:
    assert told(to(1), ready("old-1", routed=False), routed=False) == [
        "1 start new-r-1", "2 admit new-r-1", "3 stop old-1", "4 remove old-1",
    ]  # fmt: skip


def test_serving_instances_need_no_steps() -> None:
    assert told(to(2), serving("new-1"), serving("new-2")) == []


def test_instance_is_admitted_after_long_min_ready_seconds() -> None:
    assert told(to(1, min_ready=600)) == ["1 start new-r-1", "2 admit new-r-1"]


def test_matching_draining_instance_is_recalled() -> None:
    steps = told(to(1), serving("new-1", draining_since=NOW - 1, admitted=False))
    assert steps == ["1 recall new-1", "2 admit new-1"]


def test_unhealthy_instance_is_assumed_to_recover_and_dead_one_is_replaced() -> None:
    assert told(steady(1), sick("new-1")) == []
    assert "1 start new-r-1" in told(steady(1), dead("new-1"))


kinds = st.sampled_from([instance, starting, ready, serving, sick, dead])


@settings(max_examples=200)
@given(
    st.integers(0, 5),
    st.lists(st.tuples(kinds, st.sampled_from(["old", "new"]), st.booleans()), max_size=8),
    st.sampled_from(
        [{}, {"max_surge": 1}, {"max_surge": 0, "max_unavailable": 1}, {"strategy": "recreate"}, {"min_ready": 3.0}]
    ),
)
def test_simulation_ends_at_desired_size_from_any_observed_state(
    replicas: int, there: list[tuple[object, str, bool]], policy: dict[str, Any]
) -> None:
    observed = []
    for number, (kind, spec_hash, leaves) in enumerate(there, start=1):
        seen = kind(f"{spec_hash}-{number}", deployment=1)  # type: ignore[operator]
        observed.append(kind(f"{spec_hash}-{number}", deployment=1, draining_since=NOW - 1) if leaves else seen)  # type: ignore[operator]
    target = to(replicas, **policy)
    steps = simulate(target, observed, NOW, (f"new-r-{n}" for n in count(1)), routed=True)
    here = {seen.id for seen in observed} | {step.instance for step in steps if step.action == "start"}
    assert len(here - {step.instance for step in steps if step.action == "remove"}) == replicas
    assert [step.turn for step in steps] == sorted(step.turn for step in steps)


@pytest.mark.parametrize("policy", [{"max_surge": 1}, {"max_surge": 0, "max_unavailable": 1}])
def test_simulation_of_largest_service_one_at_a_time_ends(policy: dict[str, Any]) -> None:
    steps = told(to(100, **policy), *(serving(f"old-{n}") for n in range(1, 101)))
    assert sum(" remove " in step for step in steps) == 100
