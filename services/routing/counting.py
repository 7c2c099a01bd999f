"""What a router can say of the answers that went through it: counters that only grow while one process of it lives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol

BOUNDS = (
    0.002, 0.003, 0.004, 0.006, 0.009, 0.014, 0.022, 0.035, 0.055, 0.085, 0.13, 0.2,
    0.32, 0.5, 0.8, 1.25, 2.0, 3.2, 5.0, 8.0, 12.5, 20.0, 32.0, 50.0,
)  # fmt: skip
"""Seconds: an answer belongs to the first bucket whose bound is greater than the time until it began, or to one more for
what was slower than all of them. Each is at most 1.6 times the last; the gateway's clock counts milliseconds."""
NOBODY = 0
"""In place of a revision: no instance answered, but the gateway itself."""


class Cell(NamedTuple):
    """Answers that are alike. `revision`: the one that the instance was born in, or NOBODY. `status`: the first digit.
    `bucket`: the position in BOUNDS, len(BOUNDS) for the slowest; None where the gateway gave up on an instance."""

    service: str
    revision: int
    status: int
    bucket: int | None


@dataclass(frozen=True)
class Reading:
    """All that one process has counted so far. Another process, a restarted one too, has another `id`."""

    id: str
    counts: Mapping[Cell, int]


class Counting(Protocol):
    """A router that counts."""

    async def counts(self) -> list[Reading]:
        """Of every process that may still answer, and of those that ended since they were asked last. RoutingError."""
