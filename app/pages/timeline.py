"""What each instance went through in a deployment, and who got the traffic: told by its events alone, which never change,
so that a year later it reads the same."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from services.store.tables import Deployment, Event, Instance

HEADROOM, SHORTEST = 1.25, 5.0
"""The axis of a deployment that runs is so much longer than it has run, and at least so many seconds."""
READY_STATES = ("ready", "serving")


@dataclass
class Span:
    """`end`: None while it goes on. Times in seconds since the epoch."""

    status: str
    start: float
    end: float | None = None
    shares: Sequence[dict[str, int]] = ()
    """Of the traffic: [{revision, percent}]."""


@dataclass
class Track:
    """One instance: where it was in the deployment's time."""

    id: str
    revision: int
    spans: list[Span] = field(default_factory=list)

    @property
    def status(self) -> str:
        """Its last one within the deployment."""
        return self.spans[-1].status

    @property
    def took(self) -> float | None:
        """Seconds from its making to its being ready; None for what was there before, and while it is not."""
        if self.spans[0].status != "creating":
            return None
        return next((span.start - self.spans[0].start for span in self.spans if span.status in READY_STATES), None)


@dataclass(frozen=True)
class Timeline:
    """`length`: seconds from `began` to the right end; `latest`: how far is known; `ended`: None while it runs."""

    began: float
    latest: float
    ended: float | None
    length: float
    tracks: list[Track]
    traffic: list[Span]

    def x(self, at: float) -> float:
        """Where a moment is, from 0 to 1000."""
        return round(min(max(at - self.began, 0.0), self.length) / self.length * 1000, 1)


def timeline(row: Deployment, instances: Iterable[Instance], events: Sequence[Event]) -> Timeline | None:
    """`events`: the deployment's own, oldest first. None before it began."""
    if row.started_at is None:
        return None
    began, ended = row.started_at, row.finished_at
    latest = ended or max([began, *(event.at for event in events)])
    length = max(latest - began, 0.001) if ended is not None else max((latest - began) * HEADROOM, SHORTEST)
    told: dict[str, list[Event]] = {}
    for event in events:
        if event.instance is not None and "status" in event.data:
            told.setdefault(event.instance, []).append(event)
    tracks = [_track(instance, row.id, told.get(instance.id, []), began, ended) for instance in instances]
    shares = [(event.at, event.data["traffic"]) for event in events if event.type == "progress" and "traffic" in event.data]
    return Timeline(began, latest, ended, length, sorted(tracks, key=_place), _traffic(shares, ended))


def _track(instance: Instance, deployment: int | None, events: Sequence[Event], began: float, ended: float | None) -> Track:
    """What was there before served then; what was made here is told from its first event on."""
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
    """The newest revision first: it is what people wait for."""
    return -track.revision, track.spans[0].start, track.id
