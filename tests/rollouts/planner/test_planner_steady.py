"""What the planner asks for while nothing is deployed: what dies is replaced, what is sick is not trusted."""

from __future__ import annotations

from dataclasses import replace

from services.rollouts.planner.steps import Admit, Create, Drain, Progress, Succeeded, Withdraw
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


def test_in_steady_state_one_that_dies_is_replaced_at_once() -> None:
    assert planned_steps(steady(2), serving("new-1"), dead("new-2")) == (Create(2), Drain("new-2"))


def test_in_steady_state_nothing_fails() -> None:
    assert plan_for(steady(1), refused("new-1")).outcome is None


def test_when_it_keeps_dying_the_next_one_waits() -> None:
    made = plan_for(steady(2, backoff_until=NOW + 8), serving("new-1"), dead("new-2"))
    assert (made.steps, made.wake_at) == ((Drain("new-2"),), NOW + 8)


def test_one_that_the_engine_started_again_is_proved_and_admitted_again() -> None:
    assert planned_steps(steady(1), starting("new-1", died=True)) == ()
    assert planned_steps(steady(1), ready("new-1", died=True)) == (Admit("new-1"),)


def test_one_that_never_gets_ready_again_is_replaced_after_start_period() -> None:
    assert planned_steps(steady(1, start_period=5), starting("new-1", died=True)) == (Drain("new-1"),)


def test_one_whose_own_check_fails_gets_no_new_requests_until_it_is_well_again() -> None:
    unwell = serving("new-2", ready_at=None, unhealthy_since=NOW - 1)
    assert planned_steps(steady(2), serving("new-1"), unwell) == (Withdraw("new-2"),)
    assert planned_steps(steady(2), serving("new-1"), replace(unwell, admitted=False)) == ()
    assert planned_steps(steady(2), serving("new-1"), ready("new-2")) == (Admit("new-2"),)


def test_a_sick_one_is_replaced_after_start_period() -> None:
    assert planned_steps(steady(2, start_period=6), serving("new-1"), sick("new-2")) == ()
    assert planned_steps(steady(2, start_period=5), serving("new-1"), sick("new-2")) == (Drain("new-2"),)


def test_of_several_sick_ones_one_goes_at_a_time() -> None:
    target, observed = steady(3, start_period=5), [serving("new-1"), sick("new-2")]
    assert planned_steps(target, *observed, sick("new-3")) == (Drain("new-2"),)
    assert planned_steps(target, serving("new-1"), sick("new-3"), starting("new-4", slot=2, started_at=NOW)) == ()
    assert planned_steps(target, serving("new-1"), sick("new-3"), serving("new-4", slot=2)) == (Drain("new-3"),)


def test_as_many_sick_ones_go_at_once_as_may_be_missed() -> None:
    target = steady(3, start_period=5, max_unavailable=2)
    assert planned_steps(target, serving("new-1"), sick("new-2"), sick("new-3")) == (Drain("new-2"), Drain("new-3"))


def test_while_all_are_sick_none_goes() -> None:
    assert planned_steps(steady(2, start_period=5), sick("new-1"), sick("new-2")) == ()


def test_a_change_that_replaces_nothing_is_done_at_once() -> None:
    assert plan_for(to(2), serving("new-1", deployment=OLD), serving("new-2", deployment=OLD)).outcome == Succeeded()


def test_progress_counts_what_people_see() -> None:
    made = plan_for(to(3), serving("new-1"), ready("new-2"), dead("new-3"), *olds(2), draining("old-3"))
    assert made.progress == Progress(desired=3, ready=2, serving=1, old_serving=2, draining=1, failed=1)
