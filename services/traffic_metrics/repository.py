"""Traffic samples in the store: written every 10 s, rolled up to minutes, deleted after a day."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.orm import aliased
from sqlmodel import Session, col, delete, func, select

from services.routing.traffic_counts import CountKey
from services.store.tables import Revision, Service, TrafficSample
from services.traffic_metrics.histogram import BUCKETS, total

RAW_STEP, ROLLUP_STEP = 10, 60
"""Seconds that a row covers."""
RAW_KEPT_FOR, ROLLUP_KEPT_FOR = 3600, 86400
"""Seconds that rows are kept."""
ALL = ""
"""Service of a row that sums up all services.

Such a row is written even if there were no requests: it records that Sluice was running.
"""


@dataclass
class Aggregate:
    """Counts of one service's revision in one span of time."""

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


def write_samples(session: Session, at: int, increases: Mapping[CountKey, int]) -> None:
    """Write the counts of the RAW_STEP seconds that begin at `at`.

    Also rolls up the minutes that are complete by then, and deletes old rows.
    """
    sums: defaultdict[tuple[str, int], Aggregate] = defaultdict(Aggregate)
    sums[ALL, 0] = Aggregate()
    for key, number in increases.items():
        sums[key.service, key.revision].add(key, number)
        sums[ALL, 0].add(key, number)
    _write(session, RAW_STEP, at, sums)
    _roll_up(session, until=(at + RAW_STEP) // ROLLUP_STEP * ROLLUP_STEP)
    for step, retained in ((RAW_STEP, RAW_KEPT_FOR), (ROLLUP_STEP, ROLLUP_KEPT_FOR)):
        session.execute(delete(TrafficSample).where(col(TrafficSample.step) == step, col(TrafficSample.at) < at - retained))


def displayed_revisions(session: Session) -> dict[tuple[str, int], int]:
    """Return (service, revision in which an instance was created) → the service's current revision.

    Only other revisions whose instances belong to the current revision as well are included. docs/api.md shows `traffic` by
    the same rule.
    """
    created_in, present = aliased(Revision), aliased(Revision)
    query = (
        select(created_in.service, created_in.number, present.number)
        .join(Service, col(Service.name) == created_in.service)
        .join(present, (col(present.service) == created_in.service) & (col(present.number) == Service.revision))
        .where(created_in.hash == present.hash, created_in.number != present.number)
    )
    return {(service, number): displayed for service, number, displayed in session.exec(query)}


def _roll_up(session: Session, until: int) -> None:
    """Roll up every minute before `until` that has rows and no sum yet."""
    last: int | None = session.exec(select(func.max(TrafficSample.at)).where(TrafficSample.step == ROLLUP_STEP)).one()
    first = last + ROLLUP_STEP if last is not None else 0
    rows = session.exec(
        select(TrafficSample).where(
            TrafficSample.step == RAW_STEP, col(TrafficSample.at) >= first, col(TrafficSample.at) < until
        )
    )
    minutes: defaultdict[int, defaultdict[tuple[str, int], list[TrafficSample]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        minutes[row.at // ROLLUP_STEP * ROLLUP_STEP][row.service, row.revision].append(row)
    for minute, by_revision in minutes.items():
        _write(session, ROLLUP_STEP, minute, {key: _sum(rows) for key, rows in by_revision.items()})


def _sum(rows: list[TrafficSample]) -> Aggregate:
    return Aggregate(
        sum(row.requests for row in rows),
        sum(row.status_4xx for row in rows),
        sum(row.status_5xx for row in rows),
        total(row.histogram for row in rows),
    )


def _write(session: Session, step: int, at: int, sums: Mapping[tuple[str, int], Aggregate]) -> None:
    rows = [
        {"step": step, "at": at, "service": service, "revision": revision, **asdict(each)}
        for (service, revision), each in sums.items()
    ]
    # A clock that was set back may reach the same time again.
    session.execute(insert(TrafficSample).prefix_with("OR REPLACE"), rows)
