"""Failures that the planner reports, and its steps while a deployment rolls back or is paused."""

from __future__ import annotations

from typing import Any

import pytest

from services.rollouts.planner.steps import Admit, Create, Failed, MarkDraining, Progress, Recall, Stop
from tests.support.builders import (
    NEW,
    NOW,
    dead,
    drained,
    draining,
    new_instances,
    old_instances,
    plan_for,
    planned_steps,
    ready,
    refused,
    rolling_back,
    serving,
    sick,
    starting,
    to,
)


def test_deployment_without_progress_fails_at_deadline() -> None:
    made = plan_for(to(2, deadline=NOW), serving("new-1"), starting("new-2"))
    message = "no progress before the deadline: 1 of 2 instances serve"
    assert made.outcome == Failed("progress_deadline_exceeded", message)


def test_planner_wakes_at_deadline() -> None:
    assert plan_for(to(1, deadline=NOW + 3), starting("new-1")).requeue_at == NOW + 3


def test_deadline_ignores_drain_after_new_instances_serve() -> None:
    assert plan_for(to(1, deadline=NOW - 100), *new_instances(1), draining("old-1")).outcome is None


def test_deadline_allows_for_drain_that_new_instances_wait_for() -> None:
    target = to(1, strategy="recreate", deadline=NOW - 1, drain_timeout=600)
    assert plan_for(target, draining("old-1")).outcome is None
    assert isinstance(plan_for(target, draining("old-1", draining_since=NOW - 700)).outcome, Failed)


def test_unrecorded_progress_counts_before_deadline() -> None:
    before = Progress(desired=2, ready=1, serving=1).milestone
    observed = [serving("new-1"), ready("new-2")]
    assert plan_for(to(2, deadline=NOW - 1, milestone=before), *observed).outcome is None


def test_milestone_grows_with_every_step_of_rollout() -> None:
    way = [
        Progress(old_serving=2),
        Progress(ready=1, old_serving=2),
        Progress(ready=1, serving=1, old_serving=2),
        Progress(ready=1, serving=1, old_serving=1),
        Progress(ready=2, serving=2, draining=1),
        Progress(ready=2, serving=2),
    ]
    assert [step.milestone for step in way] == sorted({step.milestone for step in way})


def test_exit_before_readiness_fails_deployment_at_once() -> None:
    made = plan_for(to(3), *old_instances(), starting("new-1"), dead("new-2"), starting("new-3"))
    assert made.outcome == Failed("unhealthy_instance", "new-2 exited with code 1", "new-2")
    assert made.steps == ()


def test_crash_of_new_instance_after_serving_fails_deployment() -> None:
    came_back = serving("new-1", died=True, exit_description="exited with code 137 after it had served")
    assert isinstance(plan_for(to(2), *old_instances(1), came_back, serving("new-2")).outcome, Failed)


def test_engine_refusal_fails_deployment_with_engine_message() -> None:
    assert plan_for(to(1), refused("new-1")).outcome == Failed("no_capacity", "cannot allocate memory", "new-1")


def test_unhealthy_probes_fail_deployment_only_after_start_period() -> None:
    assert plan_for(to(1, start_period=6), starting("new-1")).outcome is None
    made = plan_for(to(1, start_period=5), starting("new-1"))
    assert made.outcome == Failed("unhealthy_instance", "new-1 was not healthy within 5 s", "new-1")


def test_failing_probes_fail_deployment_with_last_probe_error() -> None:
    made = plan_for(to(1, start_period=5), starting("new-1", last_probe_error="no connection to port 8080"))
    assert made.outcome == Failed(
        "unhealthy_instance", "new-1 was not healthy within 5 s: no connection to port 8080", "new-1"
    )


def test_served_instance_unhealthy_for_start_period_fails_deployment() -> None:
    made = plan_for(to(1, start_period=5), sick("new-1"))
    assert made.outcome == Failed("unhealthy_instance", "new-1 has been unhealthy for 5 s", "new-1")


def test_crash_of_old_instance_does_not_fail_deployment() -> None:
    made = plan_for(to(1), dead("old-1"), starting("new-1"))
    assert (made.outcome, made.steps) == (None, (MarkDraining("old-1"),))


def test_instance_that_failed_before_resume_is_replaced() -> None:
    target = to(1, started_at=NOW - 10, start_period=4)
    assert planned_steps(target, dead("new-1")) == (Create(1), MarkDraining("new-1"))
    assert planned_steps(target, starting("new-1")) == (MarkDraining("new-1"),)


def test_rollback_recalls_draining_instances() -> None:
    warm = [drained("old-1"), draining("old-2")]
    assert planned_steps(rolling_back(2), *warm, serving("new-1")) == (Recall("old-1"), Recall("old-2"))


def test_rollback_recalls_instance_that_echoes_out_of_service_of_registry() -> None:
    echoing = draining("old-1", healthy=False, drain_not_before=NOW + 30)
    assert planned_steps(rolling_back(1), echoing, serving("new-1")) == (Recall("old-1"),)


@pytest.mark.parametrize(
    "cold",
    [
        {"stopping": True},
        {"force_closed_at": NOW},
        {"healthy": False},
        {"died": True},
        {"known_to_router": False},
        {"container": "exited"},
    ],
)
def test_rollback_replaces_instance_that_cannot_be_recalled(cold: dict[str, Any]) -> None:
    steps = planned_steps(rolling_back(1, max_surge=2), draining("old-1", **cold), serving("new-1"))
    assert Recall("old-1") not in steps and Create(1) in steps


def test_rollback_recalls_only_as_many_as_are_missing() -> None:
    assert planned_steps(rolling_back(2), serving("old-1"), draining("old-2"), draining("old-3"))[0] == Recall("old-2")


def test_rollback_drains_new_instances_once_old_ones_serve() -> None:
    assert planned_steps(rolling_back(2), *old_instances(2), *new_instances(2)) == (
        MarkDraining("new-1"),
        MarkDraining("new-2"),
    )


def test_rollback_keeps_new_instances_serving_until_old_ones_serve() -> None:
    assert planned_steps(rolling_back(2), starting("old-1"), starting("old-2"), *new_instances(2)) == ()


def test_rollback_drains_new_instances_that_do_not_serve_at_once() -> None:
    steps = planned_steps(rolling_back(2), serving("old-1"), starting("old-2"), starting("new-1"), ready("new-2"))
    assert steps == (MarkDraining("new-1"), MarkDraining("new-2"))


def test_rollback_of_scale_drains_added_instances() -> None:
    added = [serving("old-3", deployment=NEW), starting("old-4", deployment=NEW)]
    assert planned_steps(rolling_back(2), *old_instances(2), *added) == (MarkDraining("old-3"), MarkDraining("old-4"))


def test_rollback_of_restart_is_not_failed_by_its_failed_instance() -> None:
    failed = dead("old-9", deployment=NEW, created_at=NOW - 20)
    made = plan_for(rolling_back(2), serving("old-1"), draining("old-2"), failed)
    assert (made.outcome, made.steps) == (None, (Recall("old-2"),))


def test_rollback_fails_when_its_own_instance_fails() -> None:
    made = plan_for(rolling_back(1), dead("old-1", deployment=NEW, created_at=NOW))
    assert made.outcome == Failed("unhealthy_instance", "old-1 exited with code 1", "old-1")


def test_paused_deployment_creates_drains_and_admits_nothing_new() -> None:
    assert planned_steps(to(3, paused=True), *old_instances(), ready("new-1")) == ()
    assert planned_steps(to(1, paused=True), *old_instances(1), *new_instances(1)) == ()


def test_paused_deployment_finishes_drains_and_readmits_restarted_instance() -> None:
    back = ready("old-1", died=True)
    assert planned_steps(to(2, paused=True), back, drained("old-2"), *new_instances(1)) == (Stop("old-2"), Admit("old-1"))


def test_paused_deployment_neither_succeeds_nor_exceeds_its_deadline() -> None:
    assert plan_for(to(1, paused=True), *new_instances(1)).outcome is None
    late = starting("new-1", started_at=NOW - 500)
    assert plan_for(to(1, paused=True, deadline=NOW - 100), late).outcome is None


def test_paused_deployment_reports_crash_of_new_instance() -> None:
    assert isinstance(plan_for(to(1, paused=True), dead("new-1")).outcome, Failed)
