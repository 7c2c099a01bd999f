"""Deltas of counters that only grow, and that start at zero with each process."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

K = TypeVar("K")
REMEMBERED = 3600.0
"""Seconds for which a source without samples is remembered.

Such a source may only have been out of reach.
"""


@dataclass(frozen=True)
class CounterSample(Generic[K]):
    """All counts of one source so far.

    A source that starts at zero again has another `id`.
    """

    id: str
    counts: Mapping[K, int]


class CounterDeltas(Generic[K]):
    """Increases of counters between two samples.

    Counts from before the first sample belong to no period: Sluice was away and does not know when they were made.
    """

    def __init__(self) -> None:
        self._seen: dict[str, tuple[float, Mapping[K, int]]] | None = None

    def update(self, readings: Iterable[CounterSample[K]], now: float) -> Counter[K] | None:
        """Return the increase since the previous call, never negative; None on the first call.

        `now` is in monotonic seconds. Samples of the same source are in order of time. A counter that is lower than before
        started at zero again.
        """
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
