"""The timeline of a deployment: its instances and its traffic, derived from its events."""

from __future__ import annotations

from typing import Any

from app.pages.timeline import Timeline, timeline
from services.store.tables import Deployment, Event, Instance


def deployment(**fields: Any) -> Deployment:
    return Deployment(id=7, service="web", kind="deploy", created_at=99.0, **{"started_at": 100.0, **fields})


def instance(id: str, born: int, created_at: float, **fields: Any) -> Instance:
    number = int(id.split("-")[1][1:])
    return Instance(
        id=id, service="web", revision=number, deployment=born, slot=1, address="10.0.0.1", hash="h",
        created_at=created_at, **fields,
    )  # fmt: skip


def word(at: float, id: str, status: str, event_type: str | None = None) -> Event:
    return Event(at=at, type=event_type or f"instance_{status}", deployment=7, instance=id, data={"status": status})


def spans(line: Timeline | None, id: str) -> list[tuple[str, float, float | None]]:
    assert line is not None
    track = next(track for track in line.tracks if track.id == id)
    return [(span.status, span.start, span.end) for span in track.spans]


def test_timeline_shows_a_new_instance_from_its_creation_and_an_old_one_as_serving() -> None:
    events = [
        word(101, "web-r2-1", "creating"), word(102, "web-r2-1", "starting"), word(103, "web-r2-1", "ready"),
        word(103, "web-r2-1", "serving"), word(104, "web-r1-1", "draining"), word(106, "web-r1-1", "stopped"),
    ]  # fmt: skip
    line = timeline(deployment(), [instance("web-r1-1", 3, 10.0), instance("web-r2-1", 7, 101.0)], events)
    assert spans(line, "web-r2-1") == [
        ("creating", 101, 102), ("starting", 102, 103), ("ready", 103, 103), ("serving", 103, None),
    ]  # fmt: skip
    assert spans(line, "web-r1-1") == [("serving", 100, 104), ("draining", 104, 106), ("stopped", 106, None)]
    assert line is not None
    assert [(track.id, track.took) for track in line.tracks] == [("web-r2-1", 2.0), ("web-r1-1", None)]


def test_timeline_of_a_finished_deployment_ignores_later_changes_of_its_instances() -> None:
    events = [word(101, "web-r2-1", "creating"), word(102, "web-r2-1", "serving")]
    over = deployment(finished_at=105.0)
    then = timeline(over, [instance("web-r2-1", 7, 101.0)], events)
    later = timeline(over, [instance("web-r2-1", 7, 101.0, status="stopped", ready_at=None, stopped_at=9e9)], events)
    assert then == later
    assert spans(then, "web-r2-1") == [("creating", 101, 102), ("serving", 102, 105)]
    assert then is not None
    assert (then.x(100), then.x(102.5), then.x(105), then.x(9e9)) == (0, 500, 1000, 1000)


def test_timeline_shows_an_exit_as_failed_until_the_engine_restarts_the_instance() -> None:
    events = [
        word(101, "web-r2-1", "starting"), word(102, "web-r2-1", "starting", "instance_exited"),
        word(103, "web-r2-1", "starting"), word(104, "web-r2-1", "failed"),
        word(105, "web-r2-1", "failed", "instance_stopped"),
    ]  # fmt: skip
    line = timeline(deployment(), [instance("web-r2-1", 7, 101.0)], events)
    assert [status for status, *_ in spans(line, "web-r2-1")] == ["creating", "starting", "failed", "starting", "failed"]


def test_timeline_shows_traffic_only_where_it_changes() -> None:
    def share(at: float, *shares: tuple[int, int]) -> Event:
        data = {"traffic": [{"revision": number, "percent": percent} for number, percent in shares], "serving": at}
        return Event(at=at, type="progress", deployment=7, data=data)

    events = [share(101, (1, 100)), share(102, (1, 100)), share(103, (2, 50), (1, 50)), share(104), share(105, (2, 100))]
    line = timeline(deployment(finished_at=106.0), [], events)
    assert line is not None
    reported = [(span.start, span.end, [share["percent"] for share in span.shares]) for span in line.traffic]
    assert reported == [(101, 103, [100]), (103, 104, [50, 50]), (104, 105, []), (105, 106, [100])]


def test_timeline_leaves_space_while_running_and_is_absent_while_pending() -> None:
    line = timeline(deployment(), [], [word(140, "web-r2-1", "creating")])
    assert line is not None
    assert (line.length, line.latest, line.ended) == (50.0, 140.0, None)
    assert timeline(deployment(started_at=None), [], []) is None
