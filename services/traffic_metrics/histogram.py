"""Sums and percentiles of histograms, as lists of one number a bucket of BUCKET_BOUNDS and one for what was slower."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from services.routing.traffic_counts import BUCKET_BOUNDS

BUCKETS = len(BUCKET_BOUNDS) + 1


def total(histograms: Iterable[Sequence[int]]) -> list[int]:
    """Bucket by bucket."""
    return [sum(bucket) for bucket in zip([0] * BUCKETS, *histograms, strict=True)]


def percentile(histogram: Sequence[int], share: float) -> float | None:
    """Seconds within which `share` (0.95) of the answers began; None when there were none.

    Within a bucket answers count as evenly spread, as Prometheus' histogram_quantile has it: at most 60 % off. What was
    slower than the last bound is told as that bound.
    """
    answers = sum(histogram)
    if not answers:
        return None
    wanted, below, lower = share * answers, 0, 0.0
    for number, bound in zip(histogram, BUCKET_BOUNDS, strict=False):
        if number and below + number >= wanted:
            return lower + (bound - lower) * (wanted - below) / number
        below, lower = below + number, bound
    return BUCKET_BOUNDS[-1]
