"""What the planner asks for, one story at a time."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from services.rollouts.plan import CUT_PATIENCE, Seen, Target, plan
from services.rollouts.steps import (
    Admit,
    Create,
    Cut,
    Done,
    Failed,
    Plan,
    Progress,
    Recall,
    Remove,
    Retire,
    Start,
    Step,
    Stop,
    Withdraw,
)

NOW = 1000.0
OLD, NEW = 1, 2


def to(replicas: int = 3, hash: str = "new", **fields: Any) -> Target:
    """A running deployment's target."""
    return Target(**{"hash": hash, "replicas": replicas, "deployment": NEW, **fields})


def steady(replicas: int = 3, **fields: Any) -> Target:
    return Target(hash="new", replicas=replicas, **fields)


def going_back(replicas: int = 3, **fields: Any) -> Target:
    return to(replicas, "old", surplus_first=NEW, since=NOW - 1, **fields)


def instance(id: str, **fields: Any) -> Seen:
    """`new-2`: the new version's, in slot 2."""
    hash, slot = id.split("-")
    born = {"new": NEW, "old": OLD}.get(hash, 0)
    seen = Seen(id=id, slot=int(slot), hash=hash, deployment=born, container="none", created_at=NOW - 30)
    return replace(seen, **fields)


def starting(id: str, **fields: Any) -> Seen:
    return instance(id, **{"container": "running", "started_at": NOW - 5, **fields})


def ready(id: str, **fields: Any) -> Seen:
    return starting(id, **{"ready_at": NOW - 1, **fields})


def serving(id: str, **fields: Any) -> Seen:
    return ready(id, **{"admitted": True, "seated": True, "settled": False, **fields})


def sick(id: str, since: float = NOW - 5, **fields: Any) -> Seen:
    return serving(id, healthy=False, unhealthy_since=since, **fields)


def dead(id: str, **fields: Any) -> Seen:
    return instance(id, **{"container": "exited", "died": True, "died_because": "exited with code 1", **fields})


def refused(id: str, **fields: Any) -> Seen:
    return instance(id, failure=("no_capacity", "cannot allocate memory"), **fields)


def draining(id: str, **fields: Any) -> Seen:
    return ready(id, **{"seated": True, "settled": False, "in_flight": 1, "leaving_at": NOW - 2, **fields})


def settled(id: str, **fields: Any) -> Seen:
    return draining(id, **{"settled": True, "in_flight": 0, **fields})


def worker(id: str, **fields: Any) -> Seen:
    return starting(id, routed=False, **fields)


def asked(target: Target, *world: Seen) -> tuple[Step, ...]:
    return plan(target, world, NOW).steps


def told(target: Target, *world: Seen) -> Plan:
    return plan(target, world, NOW)


def olds(count: int = 3) -> list[Seen]:
    return [serving(f"old-{slot}") for slot in range(1, count + 1)]


def news(count: int = 3) -> list[Seen]:
    return [serving(f"new-{slot}") for slot in range(1, count + 1)]


def test_a_first_deployment_creates_all_its_instances_at_once() -> None:
    assert asked(to(3)) == (Create(1), Create(2), Create(3))


def test_what_was_reserved_before_a_crash_is_started() -> None:
    assert asked(to(2), instance("new-1"), instance("new-2", container="created")) == (Start("new-1"), Start("new-2"))


def test_what_has_proved_itself_is_admitted() -> None:
    assert asked(to(2), ready("new-1"), starting("new-2")) == (Admit("new-1"),)


def test_all_that_is_wanted_serves_and_nothing_else_is_there() -> None:
    assert told(to(3), *news()).verdict == Done()


def test_what_one_router_does_not_know_yet_does_not_serve() -> None:
    assert told(to(1), ready("new-1", seated=True, admitted=False)).steps == (Admit("new-1"),)


def test_rolling_starts_all_new_ones_beside_the_old() -> None:
    assert asked(to(3), *olds()) == (Create(1), Create(2), Create(3))


def test_rolling_touches_what_serves_only_when_the_new_ones_serve() -> None:
    assert asked(to(3), *olds(), *news(2), ready("new-3", ready_at=None)) == ()
    assert asked(to(3), *olds(), *news(3)) == (Retire("old-1"), Retire("old-2"), Retire("old-3"))


def test_it_is_not_done_while_an_old_one_drains() -> None:
    assert told(to(3), *news(), draining("old-1")).verdict is None


def test_a_batch_is_as_large_as_the_surge() -> None:
    assert asked(to(3, max_surge=1), *olds()) == (Create(1),)
    assert asked(to(4, max_surge="50%"), *olds(4)) == (Create(1), Create(2))


def test_after_a_batch_as_many_old_ones_leave_as_may_be_missed() -> None:
    assert asked(to(3, max_surge=1), *olds(), *news(1)) == (Retire("old-3"),)


def test_the_next_batch_waits_until_the_old_one_has_gone() -> None:
    assert asked(to(3, max_surge=1), *olds(2), settled("old-3"), *news(1)) == (Stop("old-3"),)
    assert asked(to(3, max_surge=1), *olds(2), *news(1)) == (Create(2),)


def test_without_a_surge_an_old_one_leaves_first() -> None:
    target = to(3, max_surge=0, max_unavailable=1)
    assert asked(target, *olds()) == (Retire("old-3"),)
    assert asked(target, *olds(2)) == (Create(1),)


def test_an_old_one_that_does_not_serve_anyway_leaves_before_one_that_does() -> None:
    assert asked(to(3, max_surge=0, max_unavailable=1), *olds(2), sick("old-3")) == (Retire("old-3"),)


def test_percentages_that_come_to_nothing_still_let_it_move() -> None:
    assert asked(to(1, max_surge=0, max_unavailable="25%"), *olds(1)) == (Retire("old-1"),)


def test_superseded_ones_that_never_served_make_room() -> None:
    half_done = [starting("mid-1"), starting("mid-2"), starting("mid-3")]
    assert asked(to(3), *olds(), *half_done) == (Retire("mid-1"), Retire("mid-2"), Retire("mid-3"))


def test_recreate_first_lets_all_old_ones_go() -> None:
    assert asked(to(2, recreate=True), *olds(2)) == (Retire("old-1"), Retire("old-2"))


def test_recreate_creates_nothing_while_an_old_one_still_runs() -> None:
    target = to(1, recreate=True)
    assert asked(target, draining("old-1")) == ()
    assert asked(target, settled("old-1")) == (Stop("old-1"),)
    assert asked(target, settled("old-1", container="exited")) == (Remove("old-1"), Create(1))


def test_recreate_does_not_even_start_what_it_had_reserved() -> None:
    assert asked(to(1, recreate=True), instance("new-1"), draining("old-1")) == ()


def test_min_ready_seconds_hold_the_admission_back() -> None:
    made = told(to(1, min_ready=10), ready("new-1"))
    assert (made.steps, made.wake_at) == ((), NOW + 9)
    assert asked(to(1, min_ready=10), ready("new-1", ready_at=NOW - 10)) == (Admit("new-1"),)


def test_a_worker_without_a_port_serves_when_it_is_ready() -> None:
    assert told(to(1), worker("new-1", ready_at=NOW)).verdict == Done()


def test_a_worker_counts_only_after_min_ready_seconds() -> None:
    made = told(to(1, min_ready=10), worker("new-1", ready_at=NOW - 1), worker("old-1", ready_at=NOW - 50))
    assert (made.steps, made.verdict, made.wake_at) == ((), None, NOW + 9)
    assert asked(to(1, min_ready=10), worker("new-1", ready_at=NOW - 10), worker("old-1", ready_at=NOW - 50)) == (
        Retire("old-1"),
    )


def test_a_worker_is_stopped_without_a_drain() -> None:
    assert asked(to(0), worker("old-1", leaving_at=NOW)) == (Stop("old-1"),)


def test_scaling_out_adds_in_the_free_slots() -> None:
    assert asked(to(4), serving("new-1"), serving("new-3")) == (Create(2), Create(4))


def test_scaling_in_takes_the_highest_slots() -> None:
    assert asked(to(1), *news(3)) == (Retire("new-2"), Retire("new-3"))


def test_scaling_in_takes_one_that_does_not_serve_first() -> None:
    assert asked(to(2), sick("new-1"), serving("new-2"), serving("new-3")) == (Retire("new-1"),)


def test_scaling_to_nothing_ends_when_nothing_is_left() -> None:
    assert asked(to(0), *news(2)) == (Retire("new-1"), Retire("new-2"))
    assert told(to(0), settled("new-1")).verdict is None
    assert told(to(0)).verdict == Done()


def test_a_change_of_size_and_version_at_once_stays_within_the_surge() -> None:
    assert asked(to(2), *olds(5)) == (Retire("old-3"), Retire("old-4"), Retire("old-5"))


def test_a_restart_wants_only_its_own_instances_though_the_others_are_alike() -> None:
    alike = [serving(f"new-{slot}", deployment=OLD) for slot in (1, 2)]
    mine = [serving("new-3", slot=1), serving("new-4", slot=2)]
    assert asked(to(2, only_born_in=NEW), *alike) == (Create(1), Create(2))
    assert asked(to(2, only_born_in=NEW), *alike, *mine) == (Retire("new-1"), Retire("new-2"))


def test_nothing_in_flight_then_stop_then_remove() -> None:
    target = to(1)
    assert asked(target, *news(1), draining("old-1", admitted=True)) == (Withdraw("old-1"),)
    assert asked(target, *news(1), draining("old-1")) == ()
    assert asked(target, *news(1), settled("old-1")) == (Stop("old-1"),)
    assert asked(target, *news(1), settled("old-1", container="exited")) == (Remove("old-1"),)
    assert asked(target, *news(1), settled("old-1", container="none")) == (Remove("old-1"),)


def test_nothing_in_flight_is_not_enough_while_an_old_worker_may_still_send() -> None:
    assert asked(to(1), *news(1), draining("old-1", in_flight=0, settled=False)) == ()


def test_what_was_made_but_never_started_is_just_removed() -> None:
    assert asked(to(0), instance("new-1", container="created", leaving_at=NOW)) == (Remove("new-1"),)


def test_after_drain_timeout_it_is_cut_and_then_stopped() -> None:
    target = to(1, drain_timeout=30)
    assert told(target, *news(1), draining("old-1")).wake_at == NOW + 28
    assert asked(target, *news(1), draining("old-1", leaving_at=NOW - 30)) == (Cut("old-1"),)
    cut = draining("old-1", leaving_at=NOW - 31, cut_at=NOW - 1)
    assert told(target, *news(1), cut).wake_at == NOW - 1 + CUT_PATIENCE
    assert asked(target, *news(1), replace(cut, settled=True)) == (Stop("old-1"),)
    long_ago = replace(cut, leaving_at=NOW - 60, cut_at=NOW - CUT_PATIENCE)
    assert asked(target, *news(1), long_ago) == (Stop("old-1"),)


def test_a_cut_on_a_way_out_that_was_taken_back_does_not_count_on_the_next() -> None:
    assert asked(to(1), *news(1), draining("old-1", cut_at=NOW - 500)) == ()


def test_going_back_takes_back_what_is_still_warm() -> None:
    warm = [settled("old-1"), draining("old-2")]
    assert asked(going_back(2), *warm, serving("new-1")) == (Recall("old-1"), Recall("old-2"))


@pytest.mark.parametrize(
    "cold",
    [{"stopping": True}, {"cut_at": NOW}, {"healthy": False}, {"died": True}, {"seated": False}, {"container": "exited"}],
)
def test_what_is_not_warm_any_more_is_replaced(cold: dict[str, Any]) -> None:
    steps = asked(going_back(1, max_surge=2), draining("old-1", **cold), serving("new-1"))
    assert Recall("old-1") not in steps and Create(1) in steps


def test_only_as_many_are_taken_back_as_are_missing() -> None:
    assert asked(going_back(2), serving("old-1"), draining("old-2"), draining("old-3"))[0] == Recall("old-2")


def test_going_back_lets_the_new_ones_go_once_the_old_ones_serve() -> None:
    assert asked(going_back(2), *olds(2), *news(2)) == (Retire("new-1"), Retire("new-2"))


def test_going_back_lets_new_ones_serve_until_the_old_ones_do() -> None:
    assert asked(going_back(2), starting("old-1"), starting("old-2"), *news(2)) == ()


def test_going_back_lets_those_that_do_not_serve_go_at_once() -> None:
    steps = asked(going_back(2), serving("old-1"), starting("old-2"), starting("new-1"), ready("new-2"))
    assert steps == (Retire("new-1"), Retire("new-2"))


def test_undoing_a_scale_takes_away_what_it_had_added() -> None:
    added = [serving("old-3", deployment=NEW), starting("old-4", deployment=NEW)]
    assert asked(going_back(2), *olds(2), *added) == (Retire("old-3"), Retire("old-4"))


def test_undoing_a_restart_does_not_trip_over_the_instance_that_failed_it() -> None:
    failed = dead("old-9", deployment=NEW, created_at=NOW - 20)
    made = told(going_back(2), serving("old-1"), draining("old-2"), failed)
    assert (made.verdict, made.steps) == (None, (Recall("old-2"),))


def test_going_back_fails_when_what_it_began_itself_fails() -> None:
    made = told(going_back(1), dead("old-1", deployment=NEW, created_at=NOW))
    assert made.verdict == Failed("unhealthy_instance", "old-1 exited with code 1", "old-1")


def test_paused_it_creates_retires_and_admits_nothing_new() -> None:
    assert asked(to(3, paused=True), *olds(), ready("new-1")) == ()
    assert asked(to(1, paused=True), *olds(1), *news(1)) == ()


def test_paused_what_leaves_goes_on_leaving_and_what_came_back_serves_again() -> None:
    back = ready("old-1", died=True)
    assert asked(to(2, paused=True), back, settled("old-2"), *news(1)) == (Stop("old-2"), Admit("old-1"))


def test_paused_it_is_never_done_and_never_overdue() -> None:
    assert told(to(1, paused=True), *news(1)).verdict is None
    late = starting("new-1", started_at=NOW - 500)
    assert told(to(1, paused=True, deadline=NOW - 100), late).verdict is None


def test_paused_a_new_one_that_dies_is_still_told() -> None:
    assert isinstance(told(to(1, paused=True), dead("new-1")).verdict, Failed)


def test_without_progress_before_the_deadline_it_fails() -> None:
    made = told(to(2, deadline=NOW), serving("new-1"), starting("new-2"))
    message = "no progress before the deadline: 1 of 2 instances serve"
    assert made.verdict == Failed("progress_deadline_exceeded", message)


def test_before_the_deadline_it_wakes_at_it() -> None:
    assert told(to(1, deadline=NOW + 3), starting("new-1")).wake_at == NOW + 3


def test_the_deadline_is_for_the_new_ones_and_not_for_a_long_drain_after_them() -> None:
    assert told(to(1, deadline=NOW - 100), *news(1), draining("old-1")).verdict is None


def test_a_long_drain_that_new_ones_wait_for_is_not_held_against_them() -> None:
    target = to(1, recreate=True, deadline=NOW - 1, drain_timeout=600)
    assert told(target, draining("old-1")).verdict is None
    assert isinstance(told(target, draining("old-1", leaving_at=NOW - 700)).verdict, Failed)


def test_progress_that_nobody_noted_yet_counts_before_the_deadline_does() -> None:
    before = Progress(desired=2, ready=1, serving=1).milestone
    world = [serving("new-1"), ready("new-2")]
    assert told(to(2, deadline=NOW - 1, milestone=before), *world).verdict is None


def test_every_step_of_the_way_in_and_out_is_progress() -> None:
    way = [
        Progress(old_serving=2),
        Progress(ready=1, old_serving=2),
        Progress(ready=1, serving=1, old_serving=2),
        Progress(ready=1, serving=1, old_serving=1),
        Progress(ready=2, serving=2, draining=1),
        Progress(ready=2, serving=2),
    ]
    assert [step.milestone for step in way] == sorted({step.milestone for step in way})


def test_an_exit_before_readiness_fails_it_at_once() -> None:
    made = told(to(3), *olds(), starting("new-1"), dead("new-2"), starting("new-3"))
    assert made.verdict == Failed("unhealthy_instance", "new-2 exited with code 1", "new-2")
    assert made.steps == ()


def test_a_new_one_that_dies_after_it_served_fails_it_too() -> None:
    came_back = serving("new-1", died=True, died_because="exited with code 137 after it had served")
    assert isinstance(told(to(2), *olds(1), came_back, serving("new-2")).verdict, Failed)


def test_what_the_engine_refused_fails_it_in_the_engines_words() -> None:
    assert told(to(1), refused("new-1")).verdict == Failed("no_capacity", "cannot allocate memory", "new-1")


def test_unhealthy_answers_fail_it_only_after_start_period() -> None:
    assert told(to(1, start_period=6), starting("new-1")).verdict is None
    made = told(to(1, start_period=5), starting("new-1"))
    assert made.verdict == Failed("unhealthy_instance", "new-1 was not healthy within 5 s", "new-1")


def test_one_that_served_and_stays_unhealthy_for_start_period_fails_it() -> None:
    made = told(to(1, start_period=5), sick("new-1"))
    assert made.verdict == Failed("unhealthy_instance", "new-1 has been unhealthy for 5 s", "new-1")


def test_an_old_one_that_dies_does_not_fail_the_new() -> None:
    made = told(to(1), dead("old-1"), starting("new-1"))
    assert (made.verdict, made.steps) == (None, (Retire("old-1"),))


def test_what_failed_before_it_was_resumed_is_replaced() -> None:
    target = to(1, since=NOW - 10, start_period=4)
    assert asked(target, dead("new-1")) == (Create(1), Retire("new-1"))
    assert asked(target, starting("new-1")) == (Retire("new-1"),)


def test_in_steady_state_one_that_dies_is_replaced_at_once() -> None:
    assert asked(steady(2), serving("new-1"), dead("new-2")) == (Create(2), Retire("new-2"))


def test_in_steady_state_nothing_fails() -> None:
    assert told(steady(1), refused("new-1")).verdict is None


def test_when_it_keeps_dying_the_next_one_waits() -> None:
    made = told(steady(2, create_after=NOW + 8), serving("new-1"), dead("new-2"))
    assert (made.steps, made.wake_at) == ((Retire("new-2"),), NOW + 8)


def test_one_that_the_engine_started_again_is_proved_and_admitted_again() -> None:
    assert asked(steady(1), starting("new-1", died=True)) == ()
    assert asked(steady(1), ready("new-1", died=True)) == (Admit("new-1"),)


def test_one_that_never_gets_ready_again_is_replaced_after_start_period() -> None:
    assert asked(steady(1, start_period=5), starting("new-1", died=True)) == (Retire("new-1"),)


def test_one_whose_own_check_fails_gets_no_new_requests_until_it_is_well_again() -> None:
    unwell = serving("new-2", ready_at=None, unhealthy_since=NOW - 1)
    assert asked(steady(2), serving("new-1"), unwell) == (Withdraw("new-2"),)
    assert asked(steady(2), serving("new-1"), replace(unwell, admitted=False)) == ()
    assert asked(steady(2), serving("new-1"), ready("new-2")) == (Admit("new-2"),)


def test_a_sick_one_is_replaced_after_start_period() -> None:
    assert asked(steady(2, start_period=6), serving("new-1"), sick("new-2")) == ()
    assert asked(steady(2, start_period=5), serving("new-1"), sick("new-2")) == (Retire("new-2"),)


def test_of_several_sick_ones_one_goes_at_a_time() -> None:
    target, world = steady(3, start_period=5), [serving("new-1"), sick("new-2")]
    assert asked(target, *world, sick("new-3")) == (Retire("new-2"),)
    assert asked(target, serving("new-1"), sick("new-3"), starting("new-4", slot=2, started_at=NOW)) == ()
    assert asked(target, serving("new-1"), sick("new-3"), serving("new-4", slot=2)) == (Retire("new-3"),)


def test_as_many_sick_ones_go_at_once_as_may_be_missed() -> None:
    target = steady(3, start_period=5, max_unavailable=2)
    assert asked(target, serving("new-1"), sick("new-2"), sick("new-3")) == (Retire("new-2"), Retire("new-3"))


def test_while_all_are_sick_none_goes() -> None:
    assert asked(steady(2, start_period=5), sick("new-1"), sick("new-2")) == ()


def test_a_change_that_replaces_nothing_is_done_at_once() -> None:
    assert told(to(2), serving("new-1", deployment=OLD), serving("new-2", deployment=OLD)).verdict == Done()


def test_progress_counts_what_people_see() -> None:
    made = told(to(3), serving("new-1"), ready("new-2"), dead("new-3"), *olds(2), draining("old-3"))
    assert made.progress == Progress(desired=3, ready=2, serving=1, old_serving=2, draining=1, failed=1)
