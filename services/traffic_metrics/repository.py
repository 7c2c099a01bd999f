"""Figures in the store: written every 10 s, summed up to minutes, and forgotten after a day."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.orm import aliased
from sqlmodel import Session, col, delete, func, select

from services.routing.traffic_counts import CountKey
from services.store.tables import Figure, Revision, Service
from services.traffic_metrics.histogram import BUCKETS, total

FINE, ROUGH = 10, 60
"""Seconds that a row stands for."""
FINE_KEPT, ROUGH_KEPT = 3600, 86400
ALL = ""
"""The service of a row that sums them all up. It is written even when nothing was asked: it tells that Sluice was there."""


@dataclass
class Sum:
    """Of one service's revision, in one span of time."""

    requests: int = 0
    status_4xx: int = 0
    status_5xx: int = 0
    histogram: list[int] = field(default_factory=lambda: [0] * BUCKETS)

    def add(self, key: CountKey, number: int) -> None:
        if key.bucket is not None:
            self.histogram[key.bucket] += number
            return
        self.requests += number
        if key.status == 4:
            self.status_4xx += number
        elif key.status == 5:
            self.status_5xx += number


def keep(session: Session, at: int, news: Mapping[CountKey, int]) -> None:
    """What came in the FINE seconds from `at` on. The minutes that are over by then are summed up, old rows forgotten."""
    sums: defaultdict[tuple[str, int], Sum] = defaultdict(Sum)
    sums[ALL, 0] = Sum()
    for key, number in news.items():
        sums[key.service, key.revision].add(key, number)
        sums[ALL, 0].add(key, number)
    _write(session, FINE, at, sums)
    _sum_up(session, until=(at + FINE) // ROUGH * ROUGH)
    for step, retained in ((FINE, FINE_KEPT), (ROUGH, ROUGH_KEPT)):
        session.execute(delete(Figure).where(col(Figure.step) == step, col(Figure.at) < at - retained))


def present_revisions(session: Session) -> dict[tuple[str, int], int]:
    """(service, revision that an instance was born in) → the service's present revision, where the instance belongs to it as
    well (api.md: as `traffic` shows it)."""
    born, present = aliased(Revision), aliased(Revision)
    query = (
        select(born.service, born.number, present.number)
        .join(Service, col(Service.name) == born.service)
        .join(present, (col(present.service) == born.service) & (col(present.number) == Service.revision))
        .where(born.hash == present.hash, born.number != present.number)
    )
    return {(service, number): shown for service, number, shown in session.exec(query)}


def _sum_up(session: Session, until: int) -> None:
    """Every minute before `until` of which there are rows and no sum yet."""
    last: int | None = session.exec(select(func.max(Figure.at)).where(Figure.step == ROUGH)).one()
    first = last + ROUGH if last is not None else 0
    rows = session.exec(select(Figure).where(Figure.step == FINE, col(Figure.at) >= first, col(Figure.at) < until))
    minutes: defaultdict[int, defaultdict[tuple[str, int], list[Figure]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        minutes[row.at // ROUGH * ROUGH][row.service, row.revision].append(row)
    for minute, found in minutes.items():
        _write(session, ROUGH, minute, {key: _together(rows) for key, rows in found.items()})


def _together(rows: list[Figure]) -> Sum:
    return Sum(
        sum(row.requests for row in rows),
        sum(row.status_4xx for row in rows),
        sum(row.status_5xx for row in rows),
        total(row.histogram for row in rows),
    )


def _write(session: Session, step: int, at: int, sums: Mapping[tuple[str, int], Sum]) -> None:
    rows = [
        {"step": step, "at": at, "service": service, "revision": revision, **asdict(each)}
        for (service, revision), each in sums.items()
    ]
    # A clock that somebody set back may come to the same time again.
    session.execute(insert(Figure).prefix_with("OR REPLACE"), rows)
