"""Who keeps dying is said to, whoever brings it back; that all die once is no loop."""

from __future__ import annotations

from services.rollouts.reconciler.service_state import CRASH_WINDOW, ServiceState


def test_three_deaths_in_one_slot_are_a_loop_and_the_delays_grow() -> None:
    room = ServiceState()
    delays = []
    for at in (100.0, 110.0, 120.0, 130.0):
        room.record_crashes([1], at)
        delays.append(max(room.backoff_until(at) - at, 0))
    assert delays == [0, 1, 2, 4]
    assert room.is_crash_looping(130)


def test_that_each_dies_once_is_no_loop() -> None:
    room = ServiceState()
    room.record_crashes([1, 2, 3], 100)
    assert not room.is_crash_looping(100)
    assert room.backoff_until(100) == 0


def test_a_loop_that_has_ended_is_forgotten() -> None:
    room = ServiceState()
    room.record_crashes([1, 1, 1], 100)
    assert room.is_crash_looping(101)
    assert not room.is_crash_looping(101 + CRASH_WINDOW)
