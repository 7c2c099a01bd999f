"""The timeline of a deployment: the statuses of each instance and the traffic split.

The timeline depends on the deployment's events alone. Events never change, so it is the same a year later.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from services.store.tables import Deployment, Event, Instance

AXIS_HEADROOM, MIN_AXIS_SECONDS = 1.25, 5.0
"""Axis of a deployment in progress: its ratio to the elapsed time, and its minimum in seconds."""
READY_STATES = ("ready", "serving")


@dataclass
class Span:
    """A period of one status, in seconds since the epoch; `end` is None while it lasts."""

    status: str
    start: float
    end: float | None = None
    shares: Sequence[dict[str, int]] = ()
    """The traffic split: [{revision, percent}]."""


@dataclass
class Track:
    """One instance and its statuses during the deployment."""

    id: str
    revision: int
    spans: list[Span] = field(default_factory=list)

    @property
    def status(self) -> str:
        """The last status within the deployment."""
        return self.spans[-1].status

    @property
    def took(self) -> float | None:
        """Seconds from creation to readiness; None if the instance existed before, or is not ready."""
        if self.spans[0].status != "creating":
            return None
        return next((span.start - self.spans[0].start for span in self.spans if span.status in READY_STATES), None)


@dataclass(frozen=True)
class Timeline:
    """The timeline of a deployment.

    `length` is the number of seconds from `began` to the right end, `latest` the last known moment, and `ended` is None
    while the deployment is in progress.
    """

    began: float
    latest: float
    ended: float | None
    length: float
    tracks: list[Track]
    traffic: list[Span]

    def x(self, at: float) -> float:
        """Return the position of a moment, from 0 to 1000."""
        return round(min(max(at - self.began, 0.0), self.length) / self.length * 1000, 1)


def timeline(row: Deployment, instances: Iterable[Instance], events: Sequence[Event]) -> Timeline | None:
    """Return the timeline of a deployment; None before it started.

    `events` are the deployment's own, oldest first.
    """
    if row.started_at is None:
        return None
    began, ended = row.started_at, row.finished_at
    latest = ended or max([began, *(event.at for event in events)])
    length = max(latest - began, 0.001) if ended is not None else max((latest - began) * AXIS_HEADROOM, MIN_AXIS_SECONDS)
    by_instance: dict[str, list[Event]] = {}
    for event in events:
        if event.instance is not None and "status" in event.data:
            by_instance.setdefault(event.instance, []).append(event)
    tracks = [_track(instance, row.id, by_instance.get(instance.id, []), began, ended) for instance in instances]
    shares = [(event.at, event.data["traffic"]) for event in events if event.type == "progress" and "traffic" in event.data]
    return Timeline(began, latest, ended, length, sorted(tracks, key=_place), _traffic(shares, ended))


def _track(instance: Instance, deployment: int | None, events: Sequence[Event], began: float, ended: float | None) -> Track:
    """Return the track of an instance.

    An instance that existed before counts as serving at the start. The track of an instance created in the deployment
    starts with its first event.
    """
    first = "creating" if instance.deployment == deployment else "serving"
    track = Track(instance.id, instance.revision, [Span(first, max(instance.created_at, began))])
    for event in events:
        status = "failed" if event.type == "instance_exited" else str(event.data["status"])
        if status != track.status:
            track.spans[-1].end = event.at
            track.spans.append(Span(status, event.at))
    track.spans[-1].end = ended
    return track


def _traffic(shares: Iterable[tuple[float, list[dict[str, int]]]], ended: float | None) -> list[Span]:
    spans: list[Span] = []
    for at, share in shares:
        if spans and spans[-1].shares == share:
            continue
        if spans:
            spans[-1].end = at
        spans.append(Span("traffic", at, shares=share))
    if spans:
        spans[-1].end = ended
    return spans


def _place(track: Track) -> tuple[int, float, str]:
    """Return the sort key: the newest revision first, because people wait for it."""
    return -track.revision, track.spans[0].start, track.id
