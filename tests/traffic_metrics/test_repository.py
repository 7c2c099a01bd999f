"""Traffic metrics written to the store and read from it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlmodel import Session, col, func, select

from services.routing.traffic_counts import BUCKET_BOUNDS, GATEWAY_REVISION, CountKey
from services.store.open import open_store
from services.store.tables import Revision, Service, TrafficSample
from services.traffic_metrics.queries import service_metrics, sparklines
from services.traffic_metrics.repository import ALL, displayed_revisions, write_samples

FAST, SLOW = BUCKET_BOUNDS.index(0.009), BUCKET_BOUNDS.index(0.5)
HOUR = 1_800_000_000 // 3600 * 3600


def answers(*rows: tuple[str, int, int, int | None, int]) -> Counter[CountKey]:
    """Return counts from rows of (service, revision, status, bucket, number): by status, and by bucket if given."""
    found: Counter[CountKey] = Counter()
    for service, revision, status, bucket, number in rows:
        found[CountKey(service, revision, status, None)] += number
        if bucket is not None:
            found[CountKey(service, revision, None, bucket)] += number
    return found


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    store = open_store(tmp_path)
    with store.write_session() as session:
        yield session
    store.close()


def test_last_hour_has_points_of_ten_seconds_for_each_revision(session: Session) -> None:
    write_samples(session, HOUR, answers(("web", 1, 2, FAST, 90), ("web", 1, 5, FAST, 10)))
    write_samples(session, HOUR + 10, answers(("web", 1, 2, FAST, 50), ("web", 2, 4, SLOW, 5), ("api", 1, 2, FAST, 7)))
    write_samples(session, HOUR + 20, answers(("web", GATEWAY_REVISION, 5, None, 3)))
    figures = service_metrics(session, "web", HOUR + 34.5)
    assert figures.step == 10
    assert (len(figures.times), figures.times[-1]) == (360, HOUR + 20)
    assert [each.revision for each in figures.revisions] == [2, 1, None]
    second, first, gateway = figures.revisions
    assert [point.requests_per_second for point in first.points[-3:]] == [10, 5, 0]
    assert [point.error_rate for point in first.points[-3:]] == [0.1, 0, None]
    assert first.totals.requests == 150
    assert (second.totals.requests, second.totals.status_4xx, second.totals.errors) == (5, 5, 0)
    assert first.totals.latency.p95 is not None
    assert second.totals.latency.p50 is not None
    assert 0.006 < first.totals.latency.p95 < 0.009 < 0.32 < second.totals.latency.p50 < 0.5
    assert (gateway.totals.errors, gateway.totals.latency.p50) == (3, None)
    assert (figures.totals.requests, figures.totals.errors) == (158, 13)


def test_time_without_samples_is_gap_and_not_zero(session: Session) -> None:
    write_samples(session, HOUR, answers(("web", 1, 2, FAST, 10)))
    write_samples(session, HOUR + 30, answers(("web", 1, 2, FAST, 10)))
    write_samples(session, HOUR + 40, {})
    (only,) = service_metrics(session, "web", HOUR + 50, 50).revisions
    assert [point.requests_per_second for point in only.points] == [1, None, None, 1, 0]


def test_day_has_points_of_whole_minutes(session: Session) -> None:
    for at in range(HOUR, HOUR + 600, 10):
        write_samples(session, at, answers(("web", 1, 2, FAST, 6), ("web", 1, 5, SLOW, 6)))
    figures = service_metrics(session, "web", HOUR + 600, 86400)
    (only,) = figures.revisions
    assert (figures.step, len(figures.times)) == (240, 360)
    assert only.totals.requests == 720
    assert [point.requests_per_second for point in only.points[-3:]] == [0.6, 1.2, 1.2]
    assert only.points[-1].error_rate == 0.5
    assert service_metrics(session, "web", HOUR + 600, 7200).step == 60


def test_rows_of_ten_seconds_expire_after_hour_and_of_minutes_after_day(session: Session) -> None:
    for at in range(HOUR, HOUR + 90_000, 600):
        write_samples(session, at, answers(("web", 1, 2, FAST, 1)))
    oldest = dict(
        session.exec(select(TrafficSample.step, func.min(TrafficSample.at)).group_by(col(TrafficSample.step))).all()
    )
    last = HOUR + 90_000 - 600
    assert oldest == {10: last - 3600, 60: last - 86400}


def test_minute_is_aggregated_although_sluice_was_down_at_its_end(session: Session) -> None:
    write_samples(session, HOUR + 40, answers(("web", 1, 2, FAST, 5)))
    write_samples(session, HOUR + 120, {})
    assert session.get(TrafficSample, (60, HOUR, "web", 1)) is not None
    write_samples(session, HOUR + 130, {})
    assert session.get(TrafficSample, (60, HOUR + 60, ALL, 0)) is None


def test_second_sample_of_same_time_replaces_first(session: Session) -> None:
    write_samples(session, HOUR, answers(("web", 1, 2, FAST, 5)))
    write_samples(session, HOUR, answers(("web", 1, 2, FAST, 3)))
    assert service_metrics(session, "web", HOUR + 10).totals.requests == 3


def test_sparklines_cover_last_hour_of_all_services(session: Session) -> None:
    for at in range(HOUR, HOUR + 3660, 10):
        write_samples(session, at, answers(("web", 1, 2, FAST, 20), ("web", 2, 5, FAST, 10), ("api", 1, 2, FAST, 1)))
    lines = sparklines(session, HOUR + 3665)
    assert lines.keys() == {"web", "api"}
    assert lines["web"].requests == (3.0,) * 60
    assert lines["web"].errors == (1.0,) * 60
    assert lines["api"].requests == (0.1,) * 60


def test_instances_with_equal_hash_count_for_current_revision(session: Session) -> None:
    session.add(Service(name="web", revision=3, internal_port=20001, created_at=0))
    session.flush()
    for number, spec_hash in ((1, "a"), (2, "b"), (3, "b")):
        session.add(
            Revision(service="web", number=number, hash=spec_hash, image="web:1", image_id="i", deployment=1, created_at=0)
        )
    session.flush()
    assert displayed_revisions(session) == {("web", 2): 3}
