"""Families of the traffic that the gateway counted, for Prometheus."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import accumulate

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily

from services.routing.traffic_counts import BUCKET_BOUNDS, CountKey
from services.traffic_metrics.histogram import BUCKETS

_EDGES = [*map(str, BUCKET_BOUNDS), "+Inf"]
_CODES = ("2xx", "3xx", "4xx", "5xx")
"""Codes that every revision has a sample of, so that a first error is an increase and not a new series."""
_LABELS = ("service", "revision")


def traffic_families(totals: Mapping[tuple[str, int], Counter[CountKey]]) -> Iterator[Metric]:
    """Yield counters and a histogram for each service and revision of `totals`.

    Answers of the gateway itself have the revision `none`. The histogram has no sum, because the gateway keeps none;
    `histogram_quantile` needs none either.
    """
    requests = CounterMetricFamily(
        "sluice_gateway_requests", "Responses of a service, as clients got them.", labels=(*_LABELS, "code")
    )
    durations = HistogramMetricFamily(
        "sluice_gateway_request_duration_seconds", "Seconds until the response header of an instance.", labels=_LABELS
    )
    for (service, number), keys in totals.items():
        revision = str(number) if number else "none"
        codes, histogram = Counter(dict.fromkeys(_CODES, 0)), [0] * BUCKETS
        for key, count in keys.items():
            if key.bucket is not None:
                histogram[key.bucket] += count
            else:
                codes[f"{key.status}xx"] += count
        for code, count in sorted(codes.items()):
            requests.add_metric((service, revision, code), count)
        durations.add_metric((service, revision), list(zip(_EDGES, accumulate(histogram), strict=True)), sum_value=None)
        durations.add_sample(f"{durations.name}_count", {"service": service, "revision": revision}, sum(histogram))
    yield requests
    yield durations
