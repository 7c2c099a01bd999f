"""Delays grow from the first to the longest, and begin again after a reset."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.backoff import Backoff


def test_delays_grow_by_the_factor_up_to_the_longest() -> None:
    backoff = Backoff(0.25, 3, 2)
    assert [backoff.next() for _ in range(6)] == [0.25, 0.5, 1, 2, 3, 3]


def test_reset_begins_with_the_first_delay() -> None:
    backoff, grown = Backoff(1, 60), list[bool]()
    for _ in range(2):
        grown.append(backoff.grown)
        assert [backoff.next(), backoff.next()] == [1, 2]
        grown.append(backoff.grown)
        backoff.reset()
    assert grown == [False, True] * 2


def test_first_delay_is_never_longer_than_the_longest() -> None:
    assert Backoff(5, 0.5).next() == 0.5


def test_delay_of_an_attempt_leaves_the_next_delay_unchanged() -> None:
    backoff = Backoff(1, 60)
    assert [backoff.delay(attempts) for attempts in (0, 3, 9)] == [1, 8, 60]
    assert backoff.next() == 1


@pytest.mark.parametrize("factor", [1.15, 1.3, 2.0])
def test_delay_after_a_million_attempts_is_the_longest(factor: float) -> None:
    assert Backoff(0.05, 30, factor).delay(1_000_000) == 30


@given(st.floats(0.01, 10), st.floats(0.01, 100), st.floats(1, 10), st.integers(0, 500))
def test_delay_never_falls_and_never_exceeds_the_longest(first: float, longest: float, factor: float, attempts: int) -> None:
    backoff = Backoff(first, longest, factor)
    assert backoff.delay(attempts) <= backoff.delay(attempts + 1) <= longest
