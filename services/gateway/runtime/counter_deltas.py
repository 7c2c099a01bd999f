"""From counters that only grow, and begin anew with each process, to what has come since."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

K = TypeVar("K")
REMEMBERED = 3600.0
"""Seconds for which a source that is not told of any more is known again: it may only have been out of reach."""


@dataclass(frozen=True)
class CounterSample(Generic[K]):
    """All that one source has counted so far. What begins anew has another `id`."""

    id: str
    counts: Mapping[K, int]


class CounterDeltas(Generic[K]):
    """What was counted before the first look belongs to nobody: Sluice was away, and does not know when it came."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[float, Mapping[K, int]]] | None = None

    def update(self, readings: Iterable[CounterSample[K]], now: float) -> Counter[K] | None:
        """What has come since the last look, never less than nothing; None on the first. `now`: monotonic seconds.

        Of one source a later reading comes after an earlier one; a counter that is lower than before began anew."""
        first, seen = self._seen is None, self._seen or {}
        news: Counter[K] = Counter()
        for reading in readings:
            _, before = seen.get(reading.id, (now, {}))
            for key, number in reading.counts.items():
                known = before.get(key, 0)
                news[key] += number - known if number >= known else number
            seen[reading.id] = now, reading.counts
        self._seen = {id: (at, counts) for id, (at, counts) in seen.items() if at > now - REMEMBERED}
        return None if first else +news
