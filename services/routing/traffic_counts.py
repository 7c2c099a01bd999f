"""The interface of a router that counts the answers of its services."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple, Protocol

BUCKET_BOUNDS = (
    0.002, 0.003, 0.004, 0.006, 0.009, 0.014, 0.022, 0.035, 0.055, 0.085, 0.13, 0.2,
    0.32, 0.5, 0.8, 1.25, 2.0, 3.2, 5.0, 8.0, 12.5, 20.0, 32.0, 50.0,
)  # fmt: skip
"""Upper bounds of the latency buckets, in seconds.

An answer belongs to the first bucket whose bound is greater than the time until the answer began. One more bucket is for
slower answers. Each bound is at most 1.6 times the previous one. The gateway's clock counts milliseconds.
"""
GATEWAY_REVISION = 0
"""Revision of answers that the gateway gave itself, so that no instance is to blame."""


class CountKey(NamedTuple):
    """Key of answers that are counted together.

    Each answer is counted twice: once by `status` (the first digit), once by `bucket`; the other field is None. `bucket` is
    the position in BUCKET_BOUNDS, or len(BUCKET_BOUNDS) for the slowest answers. `revision` is the revision in which the
    instance was created, or GATEWAY_REVISION.
    """

    service: str
    revision: int
    status: int | None
    bucket: int | None


class TrafficCounter(Protocol):
    """A router that counts answers."""

    async def take_response_counts(self) -> Counter[CountKey] | None:
        """Return the answers that were counted since the previous call, over all processes.

        None on the first call, because it is not known when earlier answers were given. Raises RoutingError; the next call
        then includes these answers.
        """
