"""The traffic metrics as Prometheus reads them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import accumulate

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from services.routing.traffic_counts import BUCKET_BOUNDS
from services.traffic_metrics.histogram import BUCKETS
from services.traffic_metrics.sampler import TrafficSampler

_EDGES = [*map(str, BUCKET_BOUNDS), "+Inf"]


class TrafficCollector(Collector):
    """Counters and a histogram for each service and revision.

    Answers of the gateway itself have the revision `none`. The histogram has no sum, because the gateway keeps none;
    `histogram_quantile` needs none either.
    """

    def __init__(self, sampler: TrafficSampler) -> None:
        self._sampler = sampler

    def collect(self) -> Iterator[Metric]:
        labels = ("service", "revision")
        requests = CounterMetricFamily(
            "sluice_requests", "Responses of a service, as clients got them.", labels=(*labels, "code")
        )
        seconds = HistogramMetricFamily(
            "sluice_request_seconds", "Seconds until the response header of an instance.", labels=labels
        )
        for (service, number), keys in self._sampler.totals.items():
            revision = str(number) if number else "none"
            codes: Counter[str] = Counter()
            histogram = [0] * BUCKETS
            for key, count in keys.items():
                if key.bucket is not None:
                    histogram[key.bucket] += count
                else:
                    codes[f"{key.status}xx"] += count
            for code, count in sorted(codes.items()):
                requests.add_metric((service, revision, code), count)
            edges = list(zip(_EDGES, accumulate(histogram), strict=True))
            seconds.add_metric((service, revision), edges, sum_value=None)
        yield requests
        yield seconds
