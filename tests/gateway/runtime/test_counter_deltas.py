"""Growing counters of processes that come and go become deltas: none twice, none negative."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from services.gateway.runtime.counter_deltas import RETENTION_SECONDS, CounterDeltas, CounterSample

WEB, API = "web", "api"


def begun(*readings: CounterSample[str]) -> CounterDeltas[str]:
    tally: CounterDeltas[str] = CounterDeltas()
    assert tally.update(readings, 0) is None
    return tally


def test_counts_before_the_first_sample_are_ignored() -> None:
    tally = begun(CounterSample("a", {WEB: 100}))
    assert tally.update([CounterSample("a", {WEB: 103, API: 2})], 10) == {WEB: 3, API: 2}
    assert tally.update([CounterSample("a", {WEB: 103, API: 2})], 20) == {}


def test_new_worker_counts_from_zero_beside_the_worker_that_it_replaces() -> None:
    tally = begun(CounterSample("old", {WEB: 100}))
    assert tally.update([CounterSample("new", {WEB: 5}), CounterSample("old", {WEB: 107})], 10) == {WEB: 12}
    assert tally.update([CounterSample("new", {WEB: 6}), CounterSample("old", {WEB: 108})], 20) == {WEB: 2}


def test_last_sample_of_a_worker_adds_only_the_rest() -> None:
    tally = begun(CounterSample("old", {WEB: 100}))
    assert tally.update([CounterSample("old", {WEB: 104}), CounterSample("old", {WEB: 105})], 10) == {WEB: 5}


def test_expired_counter_that_starts_again_counts_from_zero() -> None:
    tally = begun(CounterSample("a", {WEB: 100}))
    assert tally.update([CounterSample("a", {})], 10) == {}
    assert tally.update([CounterSample("a", {WEB: 4})], 20) == {WEB: 4}
    assert tally.update([CounterSample("a", {WEB: 3})], 30) == {WEB: 3}


def test_unreadable_worker_is_not_counted_twice_when_it_returns() -> None:
    tally = begun(CounterSample("a", {WEB: 100}), CounterSample("b", {WEB: 1}))
    for at in range(10, int(RETENTION_SECONDS) - 10, 10):
        assert tally.update([CounterSample("b", {WEB: 1})], at) == {}
    assert tally.update([CounterSample("a", {WEB: 101})], RETENTION_SECONDS - 10) == {WEB: 1}


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 9), st.booleans()), max_size=40))
def test_counts_after_the_first_sample_are_reported_once_across_any_restarts(
    steps: list[tuple[str, int, bool]],
) -> None:
    counts, number = {"a": 0, "b": 0}, {"a": 0, "b": 0}
    tally = begun(*(CounterSample(f"{name}0", {WEB: 0}) for name in "ab"))
    reported = asked = 0
    for at, (name, more, restarts) in enumerate(steps):
        if restarts:
            number[name], counts[name] = number[name] + 1, 0
        counts[name] += more
        asked += more
        news = tally.update([CounterSample(f"{each}{number[each]}", {WEB: counts[each]}) for each in "ab"], at + 1)
        assert news is not None
        assert all(value > 0 for value in news.values())
        reported += news[WEB]
    assert reported == asked
