"""Deltas of counters that only grow, and that start at zero with each process."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

K = TypeVar("K")
RETENTION_SECONDS = 3600.0
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
        self._last: dict[str, tuple[float, Mapping[K, int]]] | None = None

    def update(self, samples: Iterable[CounterSample[K]], now: float) -> Counter[K] | None:
        """Return the increase since the previous call, never negative; None on the first call.

        `now` is in monotonic seconds. Samples of the same source are in order of time. A counter that is lower than before
        started at zero again.
        """
        first, last = self._last is None, self._last or {}
        increases: Counter[K] = Counter()
        for sample in samples:
            _, before = last.get(sample.id, (now, {}))
            for key, number in sample.counts.items():
                previous = before.get(key, 0)
                increases[key] += number - previous if number >= previous else number
            last[sample.id] = now, sample.counts
        self._last = {id: (at, counts) for id, (at, counts) in last.items() if at > now - RETENTION_SECONDS}
        return None if first else +increases
