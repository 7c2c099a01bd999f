"""Broadcast of new events: fifty open streams and pages cost one query of the event table, not fifty."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator, Collection, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import takewhile

import structlog
from fastapi.sse import format_sse_event
from sqlmodel import Session, col, func, select

from app.presenters.rollouts import present_event
from services.backoff import Backoff
from services.store.database import Store
from services.store.events import ChangeNotifier, since
from services.store.tables import Event

log = structlog.get_logger(__name__)
MIN_POLL_SECONDS = 0.05
"""Minimum seconds between two polls.

A hundred deployments notify more often than a person can read.
"""
MAX_POLL_SECONDS = 15.0
"""Seconds after which the table is polled without a notification."""
FIRST_RETRY_SECONDS = 0.5
"""Seconds after which a failed poll is tried again at first; the delay grows up to MAX_POLL_SECONDS."""
MAX_BATCH = 200
"""Maximum events of one poll or one read."""
MAX_RECENT = 1000
"""Number of the newest events that are kept in memory."""
WAKES_PER_YIELD = 8
"""Number of subscribers woken before the feed yields to other tasks.

If fifty streams write without a pause, every other response waits.
"""


@dataclass(frozen=True)
class EncodedEvent:
    """An event and the bytes of its SSE message."""

    id: int
    type: str
    deployment: int | None
    service: str | None
    line: bytes


@dataclass(frozen=True, eq=False)
class Subscription:
    """A waiting subscriber and its filters; None matches everything."""

    deployment: int | None
    types: Collection[str] | None
    status_changes: bool
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def matches(self, events: Iterable[EncodedEvent]) -> bool:
        return self.status_changes or any(map(self._matches, events))

    def _matches(self, event: EncodedEvent) -> bool:
        return self.deployment in (None, event.deployment) and (self.types is None or event.type in self.types)


def encode(event: Event) -> EncodedEvent:
    data = json.dumps(present_event(event), ensure_ascii=False)
    line = format_sse_event(event=event.type, id=str(event.id), data_str=data)
    return EncodedEvent(event.id or 0, event.type, event.deployment, event.service, line)


def read_events(session: Session, after: int) -> list[EncodedEvent]:
    """Return the next events with an id above `after`, at most MAX_BATCH."""
    return [encode(event) for event in since(session, after, limit=MAX_BATCH)]


def newest(session: Session) -> int:
    """Return the id of the last event, 0 if there is none."""
    return session.exec(select(func.max(col(Event.id)))).one() or 0


class EventFeed:
    """Polls the event table while there are subscribers, and wakes those that a new event concerns."""

    def __init__(self, store: Store, notifier: ChangeNotifier, stopping: asyncio.Event) -> None:
        self._store = store
        self._notifier = notifier
        self._stopping = stopping
        self._subscriptions: list[Subscription] = []
        self._recent: deque[EncodedEvent] = deque(maxlen=MAX_RECENT)
        self._newest_by_service: dict[str | None, int] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self.newest: int | None = None
        """Id of the last event read; None before the first read and while there are no subscribers."""

    @asynccontextmanager
    async def subscribe(
        self, deployment: int | None = None, types: Collection[str] | None = None, *, status_changes: bool = False
    ) -> AsyncIterator[asyncio.Event]:
        """Subscribe to the events of `deployment` (default: all) with one of `types` (default: all).

        Yields an asyncio.Event that is set at every such event and when Sluice stops, with `status_changes` at every
        other notification too. Clear the asyncio.Event before you read the events.
        """
        subscription = Subscription(deployment, types, status_changes)
        self._subscriptions.append(subscription)
        if not self._tasks:
            self._tasks = [asyncio.create_task(self._poll()), asyncio.create_task(self._wake_at_stop())]
        try:
            yield subscription.changed
        finally:
            self._subscriptions = [each for each in self._subscriptions if each is not subscription]
            if not self._subscriptions:
                while self._tasks:
                    self._tasks.pop().cancel()
                self.newest = None
                self._newest_by_service.clear()

    def newest_of(self, service: str | None) -> int | None:
        """Return the id of the last event of a service since the first read; None if there was none."""
        return self._newest_by_service.get(service)

    async def since(self, after: int) -> list[EncodedEvent]:
        """Return the next events with an id above `after`, at most MAX_BATCH."""
        first = self._recent[0].id if self._recent else None
        if self.newest is not None and (after >= self.newest or (first is not None and after >= first - 1)):
            newer = list(takewhile(lambda each: each.id > after, reversed(self._recent)))
            return newer[::-1][:MAX_BATCH]
        return await self._store.read(lambda session: read_events(session, after))

    async def _poll(self) -> None:
        self._recent.clear()
        last: int | None = None
        retries = Backoff(FIRST_RETRY_SECONDS, MAX_POLL_SECONDS)
        while True:
            notified = self._notifier.wait()
            try:
                if last is None:
                    last = await self._store.read(newest)
                events = await self._store.read(partial(read_events, after=last))
            except Exception:
                log.exception("events could not be read")
                await asyncio.sleep(retries.next())
                continue
            retries.reset()
            self._recent += events
            self._newest_by_service |= {event.service: event.id for event in events}
            is_first_read, last = self.newest is None, events[-1].id if events else last
            self.newest = last
            for number, subscription in enumerate(self._subscriptions, 1):
                if is_first_read or subscription.matches(events):
                    subscription.changed.set()
                if number % WAKES_PER_YIELD == 0:
                    await asyncio.sleep(0)
            await asyncio.sleep(MIN_POLL_SECONDS)
            if len(events) < MAX_BATCH:
                await _wait(notified, MAX_POLL_SECONDS)

    async def _wake_at_stop(self) -> None:
        await self._stopping.wait()
        for subscription in self._subscriptions:
            subscription.changed.set()


async def _wait(event: asyncio.Event, seconds: float) -> None:
    """Wait until `event` is set, at most `seconds`."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return
