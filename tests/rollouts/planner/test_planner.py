"""Steps that the planner returns to roll forward, to admit and to drain, one case per test."""

from __future__ import annotations

import math
from dataclasses import replace

from services.rollouts.planner.progress import FORCE_CLOSE_GRACE
from services.rollouts.planner.steps import Admit, Create, ForceClose, MarkDraining, Remove, Start, Stop, Succeeded, Withdraw
from tests.support.builders import (
    NEW,
    NOW,
    OLD,
    drained,
    draining,
    instance,
    new_instances,
    old_instances,
    plan_for,
    planned_steps,
    ready,
    serving,
    sick,
    starting,
    to,
    worker,
)


def test_first_deployment_creates_all_instances_at_once() -> None:
    assert planned_steps(to(3)) == (Create(1), Create(2), Create(3))


def test_instance_reserved_before_crash_is_started() -> None:
    assert planned_steps(to(2), instance("new-1"), instance("new-2", container="created")) == (
        Start("new-1"),
        Start("new-2"),
    )


def test_ready_instance_is_admitted() -> None:
    assert planned_steps(to(2), ready("new-1"), starting("new-2")) == (Admit("new-1"),)


def test_deployment_succeeds_when_exactly_desired_instances_serve() -> None:
    assert plan_for(to(3), *new_instances()).outcome == Succeeded()


def test_instance_not_admitted_by_every_router_does_not_serve() -> None:
    assert plan_for(to(1), ready("new-1", known_to_router=True, admitted=False)).steps == (Admit("new-1"),)


def test_rolling_update_starts_all_new_instances_beside_old_ones() -> None:
    assert planned_steps(to(3), *old_instances()) == (Create(1), Create(2), Create(3))


def test_rolling_update_drains_old_instances_only_once_new_ones_serve() -> None:
    assert planned_steps(to(3), *old_instances(), *new_instances(2), ready("new-3", ready_at=None)) == ()
    assert planned_steps(to(3), *old_instances(), *new_instances(3)) == (
        MarkDraining("old-1"),
        MarkDraining("old-2"),
        MarkDraining("old-3"),
    )


def test_deployment_is_unfinished_while_old_instance_drains() -> None:
    assert plan_for(to(3), *new_instances(), draining("old-1")).outcome is None


def test_batch_is_as_large_as_max_surge() -> None:
    assert planned_steps(to(3, max_surge=1), *old_instances()) == (Create(1),)
    assert planned_steps(to(4, max_surge="50%"), *old_instances(4)) == (Create(1), Create(2))


def test_old_instances_drain_after_batch_up_to_max_unavailable() -> None:
    assert planned_steps(to(3, max_surge=1), *old_instances(), *new_instances(1)) == (MarkDraining("old-3"),)


def test_next_batch_waits_until_old_instance_is_removed() -> None:
    assert planned_steps(to(3, max_surge=1), *old_instances(2), drained("old-3"), *new_instances(1)) == (Stop("old-3"),)
    assert planned_steps(to(3, max_surge=1), *old_instances(2), *new_instances(1)) == (Create(2),)


def test_old_instance_drains_first_without_surge() -> None:
    target = to(3, max_surge=0, max_unavailable=1)
    assert planned_steps(target, *old_instances()) == (MarkDraining("old-3"),)
    assert planned_steps(target, *old_instances(2)) == (Create(1),)


def test_unhealthy_old_instance_drains_before_serving_one() -> None:
    assert planned_steps(to(3, max_surge=0, max_unavailable=1), *old_instances(2), sick("old-3")) == (MarkDraining("old-3"),)


def test_rollout_proceeds_when_percentages_round_to_zero() -> None:
    assert planned_steps(to(1, max_surge=0, max_unavailable="25%"), *old_instances(1)) == (MarkDraining("old-1"),)


def test_superseded_instances_that_never_served_are_drained_first() -> None:
    half_done = [starting("mid-1"), starting("mid-2"), starting("mid-3")]
    assert planned_steps(to(3), *old_instances(), *half_done) == (
        MarkDraining("mid-1"),
        MarkDraining("mid-2"),
        MarkDraining("mid-3"),
    )


def test_recreate_drains_all_old_instances_first() -> None:
    assert planned_steps(to(2, strategy="recreate"), *old_instances(2)) == (MarkDraining("old-1"), MarkDraining("old-2"))


def test_recreate_creates_nothing_while_old_instance_runs() -> None:
    target = to(1, strategy="recreate")
    assert planned_steps(target, draining("old-1")) == ()
    assert planned_steps(target, drained("old-1")) == (Stop("old-1"),)
    assert planned_steps(target, drained("old-1", container="exited")) == (Remove("old-1"), Create(1))


def test_recreate_starts_no_reserved_instance_while_old_one_drains() -> None:
    assert planned_steps(to(1, strategy="recreate"), instance("new-1"), draining("old-1")) == ()


def test_min_ready_seconds_delays_admission() -> None:
    made = plan_for(to(1, min_ready=10), ready("new-1"))
    assert (made.steps, made.requeue_at) == ((), NOW + 9)
    assert planned_steps(to(1, min_ready=10), ready("new-1", ready_at=NOW - 10)) == (Admit("new-1"),)


def test_worker_without_port_serves_when_ready() -> None:
    assert plan_for(to(1), worker("new-1", ready_at=NOW)).outcome == Succeeded()


def test_worker_counts_only_after_min_ready_seconds() -> None:
    made = plan_for(to(1, min_ready=10), worker("new-1", ready_at=NOW - 1), worker("old-1", ready_at=NOW - 50))
    assert (made.steps, made.outcome, made.requeue_at) == ((), None, NOW + 9)
    assert planned_steps(to(1, min_ready=10), worker("new-1", ready_at=NOW - 10), worker("old-1", ready_at=NOW - 50)) == (
        MarkDraining("old-1"),
    )


def test_worker_is_stopped_without_drain() -> None:
    assert planned_steps(to(0), worker("old-1", draining_since=NOW)) == (Stop("old-1"),)


def test_scale_out_fills_free_slots() -> None:
    assert planned_steps(to(4), serving("new-1"), serving("new-3")) == (Create(2), Create(4))


def test_scale_in_drains_highest_slots() -> None:
    assert planned_steps(to(1), *new_instances(3)) == (MarkDraining("new-2"), MarkDraining("new-3"))


def test_scale_in_drains_unhealthy_instance_first() -> None:
    assert planned_steps(to(2), sick("new-1"), serving("new-2"), serving("new-3")) == (MarkDraining("new-1"),)


def test_scale_to_zero_succeeds_when_no_instance_is_left() -> None:
    assert planned_steps(to(0), *new_instances(2)) == (MarkDraining("new-1"), MarkDraining("new-2"))
    assert plan_for(to(0), drained("new-1")).outcome is None
    assert plan_for(to(0)).outcome == Succeeded()


def test_change_of_size_and_revision_stays_within_surge() -> None:
    assert planned_steps(to(2), *old_instances(5)) == (MarkDraining("old-3"), MarkDraining("old-4"), MarkDraining("old-5"))


def test_restart_replaces_instances_with_equal_hash() -> None:
    alike = [serving(f"new-{slot}", deployment=OLD) for slot in (1, 2)]
    mine = [serving("new-3", slot=1), serving("new-4", slot=2)]
    assert planned_steps(to(2, required_deployment=NEW), *alike) == (Create(1), Create(2))
    assert planned_steps(to(2, required_deployment=NEW), *alike, *mine) == (MarkDraining("new-1"), MarkDraining("new-2"))


def test_drained_instance_is_stopped_then_removed() -> None:
    target = to(1)
    assert planned_steps(target, *new_instances(1), draining("old-1", admitted=True)) == (Withdraw("old-1"),)
    assert planned_steps(target, *new_instances(1), draining("old-1")) == ()
    assert planned_steps(target, *new_instances(1), drained("old-1")) == (Stop("old-1"),)
    assert planned_steps(target, *new_instances(1), drained("old-1", container="exited")) == (Remove("old-1"),)
    assert planned_steps(target, *new_instances(1), drained("old-1", container="none")) == (Remove("old-1"),)


def test_idle_instance_is_not_drained_while_old_worker_may_still_send() -> None:
    assert planned_steps(to(1), *new_instances(1), draining("old-1", in_flight=0, drained=False)) == ()


def test_container_that_never_started_is_removed_directly() -> None:
    assert planned_steps(to(0), instance("new-1", container="created", draining_since=NOW)) == (Remove("new-1"),)


def test_drain_timeout_force_closes_then_stops_instance() -> None:
    target = to(1, drain_timeout=30)
    assert plan_for(target, *new_instances(1), draining("old-1")).requeue_at == NOW + 28
    assert planned_steps(target, *new_instances(1), draining("old-1", draining_since=NOW - 30)) == (ForceClose("old-1"),)
    cut = draining("old-1", draining_since=NOW - 31, force_closed_at=NOW - 1)
    assert plan_for(target, *new_instances(1), cut).requeue_at == NOW - 1 + FORCE_CLOSE_GRACE
    assert planned_steps(target, *new_instances(1), replace(cut, drained=True)) == (Stop("old-1"),)
    long_ago = replace(cut, draining_since=NOW - 60, force_closed_at=NOW - FORCE_CLOSE_GRACE)
    assert planned_steps(target, *new_instances(1), long_ago) == (Stop("old-1"),)


def test_drain_timeout_starts_when_no_client_can_send_any_more() -> None:
    target, left = to(1, drain_timeout=30), NOW - 90
    unheard = draining("old-1", draining_since=left, drain_not_before=math.inf)
    assert (planned_steps(target, *new_instances(1), unheard), plan_for(target, *new_instances(1), unheard).requeue_at) == (
        (),
        None,
    )
    cached = replace(unheard, drain_not_before=NOW + 20)
    assert (planned_steps(target, *new_instances(1), cached), plan_for(target, *new_instances(1), cached).requeue_at) == (
        (),
        NOW + 20,
    )
    assert planned_steps(target, *new_instances(1), replace(unheard, drain_not_before=NOW - 29)) == ()
    assert planned_steps(target, *new_instances(1), replace(unheard, drain_not_before=NOW - 30)) == (ForceClose("old-1"),)


def test_force_close_of_recalled_drain_does_not_count_for_next_drain() -> None:
    assert planned_steps(to(1), *new_instances(1), draining("old-1", force_closed_at=NOW - 500)) == ()
