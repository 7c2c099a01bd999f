"""Percentiles estimated from histogram buckets."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.routing.traffic_counts import BUCKET_BOUNDS
from services.traffic_metrics.histogram import BUCKETS, percentile, total


def test_bucket_bounds_grow_by_factor_of_at_most_1_6() -> None:
    assert len(BUCKET_BOUNDS) >= 16
    assert all(higher / lower <= 1.6 + 1e-9 for lower, higher in pairwise(BUCKET_BOUNDS))


def test_percentile_of_empty_histogram_is_none() -> None:
    assert percentile([0] * BUCKETS, 0.5) is None


def test_responses_of_bucket_count_as_evenly_spread() -> None:
    histogram = [0] * BUCKETS
    histogram[BUCKET_BOUNDS.index(0.2)] = 100
    assert percentile(histogram, 0.5) == pytest.approx((0.13 + 0.2) / 2)
    assert percentile(histogram, 1) == pytest.approx(0.2)


def test_percentile_above_all_buckets_is_last_bound() -> None:
    assert percentile([1] + [0] * (BUCKETS - 2) + [9], 0.95) == BUCKET_BOUNDS[-1]


@given(st.lists(st.floats(0.002, 49), min_size=1, max_size=200), st.sampled_from([0.5, 0.95, 0.99]))
def test_percentile_lies_within_bucket_of_true_value(seconds: list[float], share: float) -> None:
    histogram = [0] * BUCKETS
    for each in seconds:
        histogram[sum(bound <= each for bound in BUCKET_BOUNDS)] += 1
    true = sorted(seconds)[-(-len(seconds) * round(share * 100) // 100) - 1]
    reported = percentile(histogram, share)
    assert reported is not None
    assert true / 1.61 <= reported <= true * 1.61


def test_histograms_are_added_bucket_by_bucket() -> None:
    assert total([]) == [0] * BUCKETS
    assert total([list(range(BUCKETS)), [1] * BUCKETS]) == [n + 1 for n in range(BUCKETS)]
