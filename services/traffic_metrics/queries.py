"""Requests, errors and latency from the store, for pages and for the judgement of deployments.

An error is an answer of 500 or above, including the gateway's own. A value is None if it is unknown: Sluice was away, or
(for shares and percentiles) there were no requests.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import text
from sqlmodel import Session, col, select

from services.store.tables import TrafficSample
from services.traffic_metrics.histogram import percentile, total
from services.traffic_metrics.repository import ALL, RAW_KEPT_FOR, RAW_STEP, ROLLUP_STEP

POINTS = 360
"""Maximum number of points of a series."""
_PACKED = text(
    'SELECT service, json_group_array(json_array("at", requests, status_5xx)) FROM figure'
    ' WHERE step = :rough AND "at" >= :start AND "at" < :end AND service != :all GROUP BY service'
)


@dataclass(frozen=True)
class Latency:
    """Seconds until the answer began: the median, and the limits of 95 % and 99 % of the answers."""

    p50: float | None
    p95: float | None
    p99: float | None


@dataclass(frozen=True)
class Point:
    """Metrics of one revision over `step` seconds.

    `error_rate` is a share of the requests, from 0 to 1.
    """

    requests_per_second: float | None
    error_rate: float | None
    latency: Latency


@dataclass(frozen=True)
class Totals:
    """Metrics of the whole window."""

    requests: int
    status_4xx: int
    errors: int
    error_rate: float | None
    latency: Latency


@dataclass(frozen=True)
class RevisionMetrics:
    """Metrics of one revision; `revision` is None for answers of the gateway itself.

    Each of `points` belongs to the same position of ServiceMetrics.times.
    """

    revision: int | None
    totals: Totals
    points: tuple[Point, ...]


@dataclass(frozen=True)
class ServiceMetrics:
    """Metrics of one service; the newest revision is first.

    `step` is in seconds. `times` says when each point begins, in seconds since the epoch, oldest first.
    """

    service: str
    step: int
    times: tuple[int, ...]
    totals: Totals
    revisions: tuple[RevisionMetrics, ...]


@dataclass(frozen=True)
class Sparkline:
    """Requests and errors per second of one service in the last hour.

    There is one number for each full minute, oldest first.
    """

    requests: tuple[float, ...]
    errors: tuple[float, ...]


def service_metrics(session: Session, service: str, now: float, window: int = 3600) -> ServiceMetrics:
    """Return a service's metrics for the last `window` seconds, up to a day.

    A window of up to an hour has points of 10 s; a longer one has points of whole minutes.
    """
    detailed = window <= RAW_KEPT_FOR
    retained = RAW_STEP if detailed else ROLLUP_STEP
    step = -(-window // POINTS // retained) * retained if window > POINTS * retained else retained
    end = int(now) // retained * retained
    times = range(end - -(-window // step) * step, end, step)
    starts = range(times.start, times.stop, retained)
    # Plain rows instead of ORM objects, because there would be thousands of objects.
    columns = (
        TrafficSample.at,
        TrafficSample.service,
        TrafficSample.revision,
        TrafficSample.requests,
        TrafficSample.status_4xx,
        TrafficSample.status_5xx,
    )
    conditions = (
        TrafficSample.step == retained,
        col(TrafficSample.at).in_(starts),
        col(TrafficSample.service).in_((service, ALL)),
    )
    rows = session.execute(select(*columns, TrafficSample.histogram).where(*conditions)).all()  # type: ignore[call-overload]
    known: set[int] = set()
    by_revision: defaultdict[int, defaultdict[int, list[Any]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        at = row.at - (row.at - times.start) % step
        if row.service == ALL:
            known.add(at)
        else:
            by_revision[row.revision][at].append(row)
    revisions = tuple(
        RevisionMetrics(
            revision or None,
            _totals([row for rows_of_step in by_revision[revision].values() for row in rows_of_step]),
            tuple(_point(by_revision[revision].get(at, ()), step, at in known) for at in times),
        )
        for revision in sorted(by_revision, reverse=True)
    )
    return ServiceMetrics(service, step, tuple(times), _totals([row for row in rows if row.service == service]), revisions)


def sparklines(session: Session, now: float, minutes: int = 60) -> dict[str, Sparkline]:
    """Return service → its sparkline, in one query for all services.

    Services without requests are left out.
    """
    end = int(now) // ROLLUP_STEP * ROLLUP_STEP
    start = end - minutes * ROLLUP_STEP
    # SQLite sums and packs: one row of SQLAlchemy's for each minute of each service would cost three times as much.
    rows = session.execute(_PACKED, {"rough": ROLLUP_STEP, "all": ALL, "start": start, "end": end})
    by_service = {}
    for service, packed in rows:
        requests, errors = [0.0] * minutes, [0.0] * minutes
        for at, answers, errors_5xx in json.loads(packed):
            requests[(at - start) // ROLLUP_STEP] += answers / ROLLUP_STEP
            errors[(at - start) // ROLLUP_STEP] += errors_5xx / ROLLUP_STEP
        by_service[service] = Sparkline(tuple(requests), tuple(errors))
    return by_service


def _totals(rows: Sequence[Any]) -> Totals:
    requests, errors = sum(row.requests for row in rows), sum(row.status_5xx for row in rows)
    return Totals(requests, sum(row.status_4xx for row in rows), errors, _share(errors, requests), _latency(rows))


def _point(rows: Sequence[Any], step: int, known: bool) -> Point:
    requests, errors = sum(row.requests for row in rows), sum(row.status_5xx for row in rows)
    return Point(requests / step if known else None, _share(errors, requests), _latency(rows))


def _latency(rows: Sequence[Any]) -> Latency:
    histogram = total(row.histogram for row in rows)
    return Latency(percentile(histogram, 0.5), percentile(histogram, 0.95), percentile(histogram, 0.99))


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
