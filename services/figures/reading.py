"""What the store knows of requests, errors and latency, for pages and for whoever judges a deployment.

An error is an answer of 500 or above, the gateway's own included. Where a figure is None there was nothing to tell it from:
Sluice was away, or (for shares and percentiles) nothing was asked.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from sqlmodel import Session, col, func, select

from services.figures.histogram import percentile, total
from services.figures.keeping import ALL, FINE, FINE_KEPT, ROUGH
from services.store.tables import Figure

POINTS = 360
"""The most that a series has."""


@dataclass(frozen=True)
class Latency:
    """Seconds until the answer began: the median, and what 95 % and 99 % of the answers kept to."""

    p50: float | None
    p95: float | None
    p99: float | None


@dataclass(frozen=True)
class Point:
    """`step` seconds of one revision. `error_rate` is a share of the requests, from 0 to 1."""

    requests_per_second: float | None
    error_rate: float | None
    latency: Latency


@dataclass(frozen=True)
class Totals:
    """Of the whole window."""

    requests: int
    status_4xx: int
    errors: int
    error_rate: float | None
    latency: Latency


@dataclass(frozen=True)
class RevisionFigures:
    """`revision` None: what the gateway itself answered. Points are in step with ServiceFigures.times."""

    revision: int | None
    totals: Totals
    points: tuple[Point, ...]


@dataclass(frozen=True)
class ServiceFigures:
    """`step` in seconds; `times`: when each point begins, in seconds since the epoch, oldest first. The newest
    revision first."""

    service: str
    step: int
    times: tuple[int, ...]
    totals: Totals
    revisions: tuple[RevisionFigures, ...]


@dataclass(frozen=True)
class Sparkline:
    """The last hour of one service, a number for each full minute, oldest first: requests and errors a second."""

    requests: tuple[float, ...]
    errors: tuple[float, ...]


def service_figures(session: Session, service: str, now: float, window: int = 3600) -> ServiceFigures:
    """`window` in seconds, up to a day. One of up to an hour has points of 10 s, a longer one of whole minutes."""
    fine = window <= FINE_KEPT
    kept = FINE if fine else ROUGH
    step = -(-window // POINTS // kept) * kept if window > POINTS * kept else kept
    end = int(now) // kept * kept
    times = range(end - -(-window // step) * step, end, step)
    asked = range(times.start, times.stop, kept)
    rows = session.exec(
        select(Figure).where(Figure.step == kept, col(Figure.at).in_(asked), col(Figure.service).in_((service, ALL)))
    ).all()
    known: set[int] = set()
    by_revision: defaultdict[int, defaultdict[int, list[Figure]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        at = row.at - (row.at - times.start) % step
        if row.service == ALL:
            known.add(at)
        else:
            by_revision[row.revision][at].append(row)
    revisions = tuple(
        RevisionFigures(
            revision or None,
            _totals([row for there in by_revision[revision].values() for row in there]),
            tuple(_point(by_revision[revision].get(at, ()), step, at in known) for at in times),
        )
        for revision in sorted(by_revision, reverse=True)
    )
    return ServiceFigures(service, step, tuple(times), _totals([row for row in rows if row.service == service]), revisions)


def sparklines(session: Session, now: float, minutes: int = 60) -> dict[str, Sparkline]:
    """Service → its last hour, in one query for all; services of which nothing was asked are not there."""
    end = int(now) // ROUGH * ROUGH
    start = end - minutes * ROUGH
    rows = session.execute(
        select(Figure.service, Figure.at, func.sum(Figure.requests), func.sum(Figure.status_5xx))
        .where(Figure.step == ROUGH, col(Figure.at) >= start, col(Figure.at) < end, Figure.service != ALL)
        .group_by(col(Figure.at), col(Figure.service))
    )
    found: dict[str, tuple[list[float], list[float]]] = {}
    for service, at, requests, errors in rows:
        line = found.get(service)
        if line is None:
            line = found[service] = [0.0] * minutes, [0.0] * minutes
        line[0][(at - start) // ROUGH] = requests / ROUGH
        line[1][(at - start) // ROUGH] = errors / ROUGH
    return {service: Sparkline(tuple(requests), tuple(errors)) for service, (requests, errors) in found.items()}


def _totals(rows: Sequence[Figure]) -> Totals:
    requests, errors = sum(row.requests for row in rows), sum(row.status_5xx for row in rows)
    return Totals(requests, sum(row.status_4xx for row in rows), errors, _share(errors, requests), _latency(rows))


def _point(rows: Sequence[Figure], step: int, known: bool) -> Point:
    requests, errors = sum(row.requests for row in rows), sum(row.status_5xx for row in rows)
    return Point(requests / step if known else None, _share(errors, requests), _latency(rows))


def _latency(rows: Sequence[Figure]) -> Latency:
    histogram = total(row.histogram for row in rows)
    return Latency(percentile(histogram, 0.5), percentile(histogram, 0.95), percentile(histogram, 0.99))


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
