"""Sums and percentiles of latency histograms.

A histogram is a list with one number for each bucket of BUCKET_BOUNDS, and one for slower answers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from services.routing.traffic_counts import BUCKET_BOUNDS

BUCKETS = len(BUCKET_BOUNDS) + 1


def total(histograms: Iterable[Sequence[int]]) -> list[int]:
    """Return the sum of the histograms, bucket by bucket."""
    return [sum(bucket) for bucket in zip([0] * BUCKETS, *histograms, strict=True)]


def percentile(histogram: Sequence[int], share: float) -> float | None:
    """Return the seconds within which `share` (0.95) of the answers began; None if there were none.

    Answers count as evenly spread within a bucket, as in Prometheus' histogram_quantile: the result is at most 60 % off.
    Answers slower than the last bound are reported as that bound.
    """
    answers = sum(histogram)
    if not answers:
        return None
    target, below, lower = share * answers, 0, 0.0
    for number, bound in zip(histogram, BUCKET_BOUNDS, strict=False):
        if number and below + number >= target:
            return lower + (bound - lower) * (target - below) / number
        below, lower = below + number, bound
    return BUCKET_BOUNDS[-1]
