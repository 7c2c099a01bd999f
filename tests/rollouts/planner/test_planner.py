"""What the planner asks for on the way forward and in and out, one story at a time."""

from __future__ import annotations

import math
from dataclasses import replace

from services.rollouts.planner.progress import FORCE_CLOSE_GRACE
from services.rollouts.planner.steps import Admit, Create, Drain, ForceClose, Remove, Start, Stop, Succeeded, Withdraw
from tests.support.builders import (
    NEW,
    NOW,
    OLD,
    drained,
    draining,
    instance,
    news,
    olds,
    plan_for,
    planned_steps,
    ready,
    serving,
    sick,
    starting,
    to,
    worker,
)


def test_a_first_deployment_creates_all_its_instances_at_once() -> None:
    assert planned_steps(to(3)) == (Create(1), Create(2), Create(3))


def test_what_was_reserved_before_a_crash_is_started() -> None:
    assert planned_steps(to(2), instance("new-1"), instance("new-2", container="created")) == (
        Start("new-1"),
        Start("new-2"),
    )


def test_what_has_proved_itself_is_admitted() -> None:
    assert planned_steps(to(2), ready("new-1"), starting("new-2")) == (Admit("new-1"),)


def test_all_that_is_wanted_serves_and_nothing_else_is_there() -> None:
    assert plan_for(to(3), *news()).outcome == Succeeded()


def test_what_one_router_does_not_know_yet_does_not_serve() -> None:
    assert plan_for(to(1), ready("new-1", known_to_router=True, admitted=False)).steps == (Admit("new-1"),)


def test_rolling_starts_all_new_ones_beside_the_old() -> None:
    assert planned_steps(to(3), *olds()) == (Create(1), Create(2), Create(3))


def test_rolling_touches_what_serves_only_when_the_new_ones_serve() -> None:
    assert planned_steps(to(3), *olds(), *news(2), ready("new-3", ready_at=None)) == ()
    assert planned_steps(to(3), *olds(), *news(3)) == (Drain("old-1"), Drain("old-2"), Drain("old-3"))


def test_it_is_not_done_while_an_old_one_drains() -> None:
    assert plan_for(to(3), *news(), draining("old-1")).outcome is None


def test_a_batch_is_as_large_as_the_surge() -> None:
    assert planned_steps(to(3, max_surge=1), *olds()) == (Create(1),)
    assert planned_steps(to(4, max_surge="50%"), *olds(4)) == (Create(1), Create(2))


def test_after_a_batch_as_many_old_ones_leave_as_may_be_missed() -> None:
    assert planned_steps(to(3, max_surge=1), *olds(), *news(1)) == (Drain("old-3"),)


def test_the_next_batch_waits_until_the_old_one_has_gone() -> None:
    assert planned_steps(to(3, max_surge=1), *olds(2), drained("old-3"), *news(1)) == (Stop("old-3"),)
    assert planned_steps(to(3, max_surge=1), *olds(2), *news(1)) == (Create(2),)


def test_without_a_surge_an_old_one_leaves_first() -> None:
    target = to(3, max_surge=0, max_unavailable=1)
    assert planned_steps(target, *olds()) == (Drain("old-3"),)
    assert planned_steps(target, *olds(2)) == (Create(1),)


def test_an_old_one_that_does_not_serve_anyway_leaves_before_one_that_does() -> None:
    assert planned_steps(to(3, max_surge=0, max_unavailable=1), *olds(2), sick("old-3")) == (Drain("old-3"),)


def test_percentages_that_come_to_nothing_still_let_it_move() -> None:
    assert planned_steps(to(1, max_surge=0, max_unavailable="25%"), *olds(1)) == (Drain("old-1"),)


def test_superseded_ones_that_never_served_make_room() -> None:
    half_done = [starting("mid-1"), starting("mid-2"), starting("mid-3")]
    assert planned_steps(to(3), *olds(), *half_done) == (Drain("mid-1"), Drain("mid-2"), Drain("mid-3"))


def test_recreate_first_lets_all_old_ones_go() -> None:
    assert planned_steps(to(2, recreate=True), *olds(2)) == (Drain("old-1"), Drain("old-2"))


def test_recreate_creates_nothing_while_an_old_one_still_runs() -> None:
    target = to(1, recreate=True)
    assert planned_steps(target, draining("old-1")) == ()
    assert planned_steps(target, drained("old-1")) == (Stop("old-1"),)
    assert planned_steps(target, drained("old-1", container="exited")) == (Remove("old-1"), Create(1))


def test_recreate_does_not_even_start_what_it_had_reserved() -> None:
    assert planned_steps(to(1, recreate=True), instance("new-1"), draining("old-1")) == ()


def test_min_ready_seconds_hold_the_admission_back() -> None:
    made = plan_for(to(1, min_ready=10), ready("new-1"))
    assert (made.steps, made.wake_at) == ((), NOW + 9)
    assert planned_steps(to(1, min_ready=10), ready("new-1", ready_at=NOW - 10)) == (Admit("new-1"),)


def test_a_worker_without_a_port_serves_when_it_is_ready() -> None:
    assert plan_for(to(1), worker("new-1", ready_at=NOW)).outcome == Succeeded()


def test_a_worker_counts_only_after_min_ready_seconds() -> None:
    made = plan_for(to(1, min_ready=10), worker("new-1", ready_at=NOW - 1), worker("old-1", ready_at=NOW - 50))
    assert (made.steps, made.outcome, made.wake_at) == ((), None, NOW + 9)
    assert planned_steps(to(1, min_ready=10), worker("new-1", ready_at=NOW - 10), worker("old-1", ready_at=NOW - 50)) == (
        Drain("old-1"),
    )


def test_a_worker_is_stopped_without_a_drain() -> None:
    assert planned_steps(to(0), worker("old-1", draining_since=NOW)) == (Stop("old-1"),)


def test_scaling_out_adds_in_the_free_slots() -> None:
    assert planned_steps(to(4), serving("new-1"), serving("new-3")) == (Create(2), Create(4))


def test_scaling_in_takes_the_highest_slots() -> None:
    assert planned_steps(to(1), *news(3)) == (Drain("new-2"), Drain("new-3"))


def test_scaling_in_takes_one_that_does_not_serve_first() -> None:
    assert planned_steps(to(2), sick("new-1"), serving("new-2"), serving("new-3")) == (Drain("new-1"),)


def test_scaling_to_nothing_ends_when_nothing_is_left() -> None:
    assert planned_steps(to(0), *news(2)) == (Drain("new-1"), Drain("new-2"))
    assert plan_for(to(0), drained("new-1")).outcome is None
    assert plan_for(to(0)).outcome == Succeeded()


def test_a_change_of_size_and_version_at_once_stays_within_the_surge() -> None:
    assert planned_steps(to(2), *olds(5)) == (Drain("old-3"), Drain("old-4"), Drain("old-5"))


def test_a_restart_wants_only_its_own_instances_though_the_others_are_alike() -> None:
    alike = [serving(f"new-{slot}", deployment=OLD) for slot in (1, 2)]
    mine = [serving("new-3", slot=1), serving("new-4", slot=2)]
    assert planned_steps(to(2, required_deployment=NEW), *alike) == (Create(1), Create(2))
    assert planned_steps(to(2, required_deployment=NEW), *alike, *mine) == (Drain("new-1"), Drain("new-2"))


def test_nothing_in_flight_then_stop_then_remove() -> None:
    target = to(1)
    assert planned_steps(target, *news(1), draining("old-1", admitted=True)) == (Withdraw("old-1"),)
    assert planned_steps(target, *news(1), draining("old-1")) == ()
    assert planned_steps(target, *news(1), drained("old-1")) == (Stop("old-1"),)
    assert planned_steps(target, *news(1), drained("old-1", container="exited")) == (Remove("old-1"),)
    assert planned_steps(target, *news(1), drained("old-1", container="none")) == (Remove("old-1"),)


def test_nothing_in_flight_is_not_enough_while_an_old_worker_may_still_send() -> None:
    assert planned_steps(to(1), *news(1), draining("old-1", in_flight=0, drained=False)) == ()


def test_what_was_made_but_never_started_is_just_removed() -> None:
    assert planned_steps(to(0), instance("new-1", container="created", draining_since=NOW)) == (Remove("new-1"),)


def test_after_drain_timeout_it_is_cut_and_then_stopped() -> None:
    target = to(1, drain_timeout=30)
    assert plan_for(target, *news(1), draining("old-1")).wake_at == NOW + 28
    assert planned_steps(target, *news(1), draining("old-1", draining_since=NOW - 30)) == (ForceClose("old-1"),)
    cut = draining("old-1", draining_since=NOW - 31, force_closed_at=NOW - 1)
    assert plan_for(target, *news(1), cut).wake_at == NOW - 1 + FORCE_CLOSE_GRACE
    assert planned_steps(target, *news(1), replace(cut, drained=True)) == (Stop("old-1"),)
    long_ago = replace(cut, draining_since=NOW - 60, force_closed_at=NOW - FORCE_CLOSE_GRACE)
    assert planned_steps(target, *news(1), long_ago) == (Stop("old-1"),)


def test_drain_timeout_begins_when_nobody_can_send_to_it_any_more() -> None:
    target, left = to(1, drain_timeout=30), NOW - 90
    unheard = draining("old-1", draining_since=left, drain_not_before=math.inf)
    assert (planned_steps(target, *news(1), unheard), plan_for(target, *news(1), unheard).wake_at) == ((), None)
    cached = replace(unheard, drain_not_before=NOW + 20)
    assert (planned_steps(target, *news(1), cached), plan_for(target, *news(1), cached).wake_at) == ((), NOW + 20)
    assert planned_steps(target, *news(1), replace(unheard, drain_not_before=NOW - 29)) == ()
    assert planned_steps(target, *news(1), replace(unheard, drain_not_before=NOW - 30)) == (ForceClose("old-1"),)


def test_a_cut_on_a_way_out_that_was_taken_back_does_not_count_on_the_next() -> None:
    assert planned_steps(to(1), *news(1), draining("old-1", force_closed_at=NOW - 500)) == ()
