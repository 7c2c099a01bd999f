"""Counters that only grow, of processes that come and go, become what has come since: nothing twice, nothing negative."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from services.gateway.runtime.counter_deltas import REMEMBERED, CounterDeltas, CounterSample

WEB, API = "web", "api"


def begun(*readings: CounterSample[str]) -> CounterDeltas[str]:
    tally: CounterDeltas[str] = CounterDeltas()
    assert tally.update(readings, 0) is None
    return tally


def test_what_was_counted_before_the_first_look_is_not_ours() -> None:
    tally = begun(CounterSample("a", {WEB: 100}))
    assert tally.update([CounterSample("a", {WEB: 103, API: 2})], 10) == {WEB: 3, API: 2}
    assert tally.update([CounterSample("a", {WEB: 103, API: 2})], 20) == {}


def test_a_worker_that_comes_counts_from_nothing_beside_the_one_that_it_replaces() -> None:
    tally = begun(CounterSample("old", {WEB: 100}))
    assert tally.update([CounterSample("new", {WEB: 5}), CounterSample("old", {WEB: 107})], 10) == {WEB: 12}
    assert tally.update([CounterSample("new", {WEB: 6}), CounterSample("old", {WEB: 108})], 20) == {WEB: 2}


def test_the_last_words_of_a_worker_add_what_it_had_not_told_yet() -> None:
    tally = begun(CounterSample("old", {WEB: 100}))
    assert tally.update([CounterSample("old", {WEB: 104}), CounterSample("old", {WEB: 105})], 10) == {WEB: 5}


def test_an_entry_that_was_forgotten_and_began_anew_is_counted_from_nothing() -> None:
    tally = begun(CounterSample("a", {WEB: 100}))
    assert tally.update([CounterSample("a", {})], 10) == {}
    assert tally.update([CounterSample("a", {WEB: 4})], 20) == {WEB: 4}
    assert tally.update([CounterSample("a", {WEB: 3})], 30) == {WEB: 3}


def test_a_worker_that_could_not_be_read_for_a_while_is_not_counted_twice() -> None:
    tally = begun(CounterSample("a", {WEB: 100}), CounterSample("b", {WEB: 1}))
    for at in range(10, int(REMEMBERED) - 10, 10):
        assert tally.update([CounterSample("b", {WEB: 1})], at) == {}
    assert tally.update([CounterSample("a", {WEB: 101})], REMEMBERED - 10) == {WEB: 1}


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 9), st.booleans()), max_size=40))
def test_whatever_restarts_all_that_was_counted_after_the_first_look_is_told_once(
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
