"""Families about deployments, counted from the store."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator
from copy import deepcopy
from dataclasses import dataclass, field
from itertools import accumulate, chain
from threading import Lock

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from sqlalchemy import bindparam
from sqlmodel import Session, col

from services.rollouts.state.status import TERMINAL, Status
from services.store.readonly import select_readonly
from services.store.tables import Deployment

DURATION_BUCKETS = (1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0)
_EDGES = [*map(str, DURATION_BUCKETS), "+Inf"]
_AFTER = (
    select_readonly(Deployment, "id", "service", "kind", "status", "started_at", "finished_at")
    .where(col(Deployment.id) > bindparam("after"))
    .order_by(col(Deployment.id))
)


@dataclass
class DeploymentCounts:
    """Numbers of deployments by service, kind and status, and durations of the ended ones by status."""

    numbers: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    histograms: defaultdict[str, Counter[int]] = field(default_factory=lambda: defaultdict(Counter))
    """Status → position in DURATION_BUCKETS → number of deployments."""
    seconds: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))

    def add(self, row: Deployment) -> None:
        """Count a deployment; it has a duration if it began and has ended."""
        self.numbers[row.service, row.kind, row.status] += 1
        if row.started_at is not None and row.finished_at is not None:
            seconds = row.finished_at - row.started_at
            self.histograms[row.status][bisect_left(DURATION_BUCKETS, seconds)] += 1
            self.seconds[row.status] += seconds


class DeploymentCounter:
    """A counter of all deployments that reads each ended one from the store only once.

    An ended deployment never changes. A scrape therefore reads the deployments from the oldest unended one on, and not the
    whole history.
    """

    def __init__(self) -> None:
        self._lock = Lock()  # scrapes run in the store's reader threads
        self._ended = DeploymentCounts()
        self._ended_through = 0
        """All deployments up to this id have ended and are counted in `_ended`."""

    def count(self, session: Session) -> DeploymentCounts:
        """Return the counts of all deployments."""
        with self._lock:
            rows = iter(session.exec(_AFTER, params={"after": self._ended_through}).all())
            unended: list[Deployment] = []
            for row in rows:
                if row.status not in TERMINAL:
                    unended.append(row)
                    break
                self._ended.add(row)
                self._ended_through = row.id or 0
            counts = deepcopy(self._ended)
        for row in chain(unended, rows):
            counts.add(row)
        return counts


def deployment_families(counts: DeploymentCounts, services: Collection[str]) -> Iterator[Metric]:
    """Yield the numbers for each of `services`, and the durations of all deployments."""
    numbers: Counter[tuple[str, str]] = Counter()
    for (service, _, status), number in counts.numbers.items():
        numbers[service, status] += number
    active = GaugeMetricFamily(
        "sluice_deployments_active", "Deployments that have not ended, by service and status.", labels=["service", "status"]
    )
    ended = CounterMetricFamily(
        "sluice_deployments", "Deployments that have ended, by service and status.", labels=["service", "status"]
    )
    for service in sorted(services):
        for status in Status:
            family = ended if status in TERMINAL else active
            family.add_metric([service, status], numbers[service, status])
    yield active
    yield ended
    yield _durations(counts)


def _durations(counts: DeploymentCounts) -> Metric:
    family = HistogramMetricFamily(
        "sluice_deployment_duration_seconds",
        "Seconds from the start of a deployment to its end, by status.",
        labels=["status"],
    )
    for status in Status:
        if status in TERMINAL:
            buckets = counts.histograms[status]
            numbers = accumulate(buckets[position] for position in range(len(_EDGES)))
            family.add_metric([status], list(zip(_EDGES, numbers, strict=True)), counts.seconds[status])
    return family
