"""Steps of the planner while no deployment runs: dead and unhealthy instances are replaced."""

from __future__ import annotations

import math
from dataclasses import replace

from services.rollouts.planner.progress import next_arrival
from services.rollouts.planner.steps import Admit, Create, MarkDraining, Progress, Succeeded, Withdraw
from tests.support.builders import (
    NOW,
    OLD,
    dead,
    draining,
    olds,
    plan_for,
    planned_steps,
    ready,
    refused,
    serving,
    sick,
    starting,
    steady,
    to,
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


def test_unhealthy_instances_stay_while_all_are_unhealthy() -> None:
    assert planned_steps(steady(2, start_period=5), sick("new-1"), sick("new-2")) == ()


def test_deployment_that_replaces_nothing_succeeds_at_once() -> None:
    assert plan_for(to(2), serving("new-1", deployment=OLD), serving("new-2", deployment=OLD)).outcome == Succeeded()


def test_progress_counts_instances_by_state() -> None:
    made = plan_for(to(3), serving("new-1"), ready("new-2"), dead("new-3"), *olds(2), draining("old-3"))
    assert made.progress == Progress(desired=3, ready=2, serving=1, old_serving=2, draining=1, failed=1)


def test_instance_arrives_when_it_lives_or_when_it_may_be_created() -> None:
    assert next_arrival(steady(0), []) == math.inf
    assert next_arrival(steady(1, backoff_until=NOW + 30), [starting("new-1")]) == 0
    assert next_arrival(steady(1, backoff_until=NOW + 30), [dead("new-1"), draining("new-1")]) == NOW + 30
    assert next_arrival(to(1), []) == 0
    assert next_arrival(to(1, paused=True), [draining("old-1")]) == math.inf
