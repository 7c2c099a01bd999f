"""Steps of the planner while no deployment runs: dead and unhealthy instances are replaced."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from services.rollouts.planner.progress import LOST_DRAIN_TIMEOUT, next_arrival
from services.rollouts.planner.steps import (
    Admit,
    Create,
    ForceClose,
    MarkDraining,
    Progress,
    Remove,
    Stop,
    Succeeded,
    Withdraw,
)
from tests.support.builders import (
    NOW,
    OLD,
    dead,
    drained,
    draining,
    old_instances,
    plan_for,
    planned_steps,
    ready,
    refused,
    serving,
    sick,
    starting,
    steady,
    to,
    worker,
)


def test_dead_instance_is_replaced_at_once() -> None:
    assert planned_steps(steady(2), serving("new-1"), dead("new-2")) == (Create(2), MarkDraining("new-2"))


def test_steady_state_never_fails() -> None:
    assert plan_for(steady(1), refused("new-1")).outcome is None


def test_replacement_waits_for_backoff_after_repeated_crashes() -> None:
    made = plan_for(steady(2, backoff_until=NOW + 8), serving("new-1"), dead("new-2"))
    assert (made.steps, made.requeue_at) == ((MarkDraining("new-2"),), NOW + 8)


def test_restarted_instance_is_admitted_only_once_ready_again() -> None:
    assert planned_steps(steady(1), starting("new-1", died=True)) == ()
    assert planned_steps(steady(1), ready("new-1", died=True)) == (Admit("new-1"),)


def test_restarted_instance_not_ready_within_start_period_is_replaced() -> None:
    assert planned_steps(steady(1, start_period=5), starting("new-1", died=True)) == (MarkDraining("new-1"),)


def test_instance_failing_its_health_check_is_withdrawn_until_ready_again() -> None:
    unwell = serving("new-2", ready_at=None, unhealthy_since=NOW - 1)
    assert planned_steps(steady(2), serving("new-1"), unwell) == (Withdraw("new-2"),)
    assert planned_steps(steady(2), serving("new-1"), replace(unwell, admitted=False)) == ()
    assert planned_steps(steady(2), serving("new-1"), ready("new-2")) == (Admit("new-2"),)


def test_unhealthy_instance_is_replaced_after_start_period() -> None:
    assert planned_steps(steady(2, start_period=6), serving("new-1"), sick("new-2")) == ()
    assert planned_steps(steady(2, start_period=5), serving("new-1"), sick("new-2")) == (MarkDraining("new-2"),)


def test_unhealthy_instances_are_replaced_one_at_a_time() -> None:
    target, observed = steady(3, start_period=5), [serving("new-1"), sick("new-2")]
    assert planned_steps(target, *observed, sick("new-3")) == (MarkDraining("new-2"),)
    assert planned_steps(target, serving("new-1"), sick("new-3"), starting("new-4", slot=2, started_at=NOW)) == ()
    assert planned_steps(target, serving("new-1"), sick("new-3"), serving("new-4", slot=2)) == (MarkDraining("new-3"),)


def test_unhealthy_instances_are_replaced_up_to_max_unavailable() -> None:
    target = steady(3, start_period=5, max_unavailable=2)
    steps = planned_steps(target, serving("new-1"), sick("new-2"), sick("new-3"))
    assert steps == (MarkDraining("new-2"), MarkDraining("new-3"))


def test_one_trial_starts_beside_the_instances_while_all_are_unhealthy() -> None:
    target, observed = steady(2, start_period=5), [sick("new-1"), sick("new-2", since=NOW - 6)]
    assert planned_steps(target, *observed) == (Create(2),)
    assert planned_steps(target, *observed, starting("new-3", slot=2, started_at=NOW)) == ()
    assert planned_steps(target, *observed, ready("new-3", slot=2)) == (Admit("new-3"),)


def test_trial_waits_for_start_period_and_for_backoff() -> None:
    early = plan_for(steady(1, start_period=6), sick("new-1"))
    assert (early.steps, early.requeue_at) == ((), NOW + 1)
    backing_off = plan_for(steady(1, start_period=5, backoff_until=NOW + 8), sick("new-1"))
    assert (backing_off.steps, backing_off.requeue_at) == ((), NOW + 8)


def test_trial_that_serves_replaces_the_unhealthy_instance() -> None:
    target = steady(1, start_period=5)
    assert planned_steps(target, sick("new-1"), serving("new-2", slot=1)) == (MarkDraining("new-1"),)


def test_trial_that_is_no_better_is_removed_and_the_unhealthy_instance_stays() -> None:
    target, hung = steady(1, start_period=5), sick("new-1")
    assert planned_steps(target, hung, starting("new-2", slot=1)) == (MarkDraining("new-2"),)
    assert planned_steps(target, hung, dead("new-2", slot=1)) == (MarkDraining("new-2"),)


def test_trial_is_removed_if_the_unhealthy_instance_recovers() -> None:
    trial = starting("new-2", slot=1, started_at=NOW)
    assert planned_steps(steady(1, start_period=5), serving("new-1"), trial) == (MarkDraining("new-2"),)


@pytest.mark.parametrize("policy", [{"strategy": "recreate"}, {"max_surge": 0, "max_unavailable": 1}])
def test_unhealthy_instance_without_surge_is_restarted_in_place(policy: dict[str, Any]) -> None:
    target, hung = steady(1, start_period=5, **policy), sick("new-1")
    assert planned_steps(target, hung) == (MarkDraining("new-1"),)
    assert planned_steps(target, drained("new-1", unhealthy_since=NOW - 5)) == (Stop("new-1"),)
    assert planned_steps(target, draining("new-1", container="exited", died=True)) == (Remove("new-1"), Create(1))


def test_only_one_of_several_hung_instances_is_restarted_in_place_at_a_time() -> None:
    target, leaving = steady(3, start_period=5, strategy="recreate"), drained("new-1", unhealthy_since=NOW - 5)
    assert planned_steps(target, sick("new-1"), sick("new-2"), sick("new-3")) == (MarkDraining("new-1"),)
    assert planned_steps(target, leaving, sick("new-2"), sick("new-3")) == (Stop("new-1"),)


def test_hung_worker_is_replaced_by_a_trial_that_is_ready() -> None:
    target, hung = steady(1, start_period=5), worker("new-1", unhealthy_since=NOW - 5)
    assert planned_steps(target, hung) == (Create(1),)
    assert planned_steps(target, hung, worker("new-2", slot=1, ready_at=NOW)) == (MarkDraining("new-1"),)


def test_instance_that_lost_its_address_is_replaced_at_once_even_if_nothing_else_serves() -> None:
    lost = serving("new-1", lost="lost its address")
    assert planned_steps(steady(1), lost) == (MarkDraining("new-1"),)
    leaving = draining("new-1", lost="lost its address", draining_since=NOW - LOST_DRAIN_TIMEOUT)
    assert planned_steps(steady(1), leaving) == (ForceClose("new-1"), Create(1))
    assert planned_steps(steady(1, strategy="recreate"), leaving) == (ForceClose("new-1"),)


def test_deployment_that_replaces_nothing_succeeds_at_once() -> None:
    assert plan_for(to(2), serving("new-1", deployment=OLD), serving("new-2", deployment=OLD)).outcome == Succeeded()


def test_progress_counts_instances_by_state() -> None:
    made = plan_for(to(3), serving("new-1"), ready("new-2"), dead("new-3"), *old_instances(2), draining("old-3"))
    assert made.progress == Progress(desired=3, ready=2, serving=1, old_serving=2, draining=1, failed=1)


def test_instance_arrives_when_it_lives_or_when_it_may_be_created() -> None:
    assert next_arrival(steady(0), []) == math.inf
    assert next_arrival(steady(1, backoff_until=NOW + 30), [starting("new-1")]) == 0
    assert next_arrival(steady(1, backoff_until=NOW + 30), [dead("new-1"), draining("new-1")]) == NOW + 30
    assert next_arrival(to(1), []) == 0
    assert next_arrival(to(1, paused=True), [draining("old-1")]) == 0
