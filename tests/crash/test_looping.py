"""Detection of crash loops: repeated crashes in one slot count, one crash in each slot does not."""

from __future__ import annotations

from services.rollouts.reconciler.service_state import CRASH_WINDOW, ServiceState


def test_three_crashes_in_one_slot_are_crash_loop_with_growing_backoff() -> None:
    room = ServiceState()
    delays = []
    for at in (100.0, 110.0, 120.0, 130.0):
        room.record_crashes([1], at)
        delays.append(max(room.backoff_until(at) - at, 0))
    assert delays == [0, 1, 2, 4]
    assert room.is_crash_looping(130)


def test_single_crash_in_each_slot_is_no_crash_loop() -> None:
    room = ServiceState()
    room.record_crashes([1, 2, 3], 100)
    assert not room.is_crash_looping(100)
    assert room.backoff_until(100) == 0


def test_crash_loop_ends_after_crash_window() -> None:
    room = ServiceState()
    room.record_crashes([1, 1, 1], 100)
    assert room.is_crash_looping(101)
    assert not room.is_crash_looping(101 + CRASH_WINDOW)
