"""What a router can say of the answers that went through it."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple, Protocol

BUCKET_BOUNDS = (
    0.002, 0.003, 0.004, 0.006, 0.009, 0.014, 0.022, 0.035, 0.055, 0.085, 0.13, 0.2,
    0.32, 0.5, 0.8, 1.25, 2.0, 3.2, 5.0, 8.0, 12.5, 20.0, 32.0, 50.0,
)  # fmt: skip
"""Seconds: an answer belongs to the first bucket whose bound is greater than the time until it began, or to one more for
what was slower than all of them. Each is at most 1.6 times the last; the gateway's clock counts milliseconds."""
GATEWAY_REVISION = 0
"""In place of a revision: no instance is to blame, the gateway itself answered."""


class CountKey(NamedTuple):
    """Answers that are alike, counted twice over: by `status` (its first digit), and by `bucket` (the position in
    BUCKET_BOUNDS,
    len(BUCKET_BOUNDS) for the slowest), where the other is None. `revision`: the one that the instance was born in, or
    GATEWAY_REVISION."""

    service: str
    revision: int
    status: int | None
    bucket: int | None


class TrafficCounter(Protocol):
    """A router that counts."""

    async def take_response_counts(self) -> Counter[CountKey] | None:
        """What was answered since this was asked last, by whatever processes; None on the first time: what came before that
        came nobody knows when. RoutingError; then the next time tells of it."""
