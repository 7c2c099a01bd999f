"""Broadcast of new events: fifty open streams cost one query of the event table, not fifty."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import takewhile

import structlog
from fastapi.sse import format_sse_event
from sqlmodel import Session, col, func, select

from app.presenters.rollouts import present_event
from services.store.database import Store
from services.store.events import ChangeNotifier, since
from services.store.tables import Event

log = structlog.get_logger(__name__)
PACE = 0.05
"""Minimum seconds between two polls.

A hundred deployments notify more often than a person can read.
"""
LOOK = 15.0
"""Seconds after which the table is polled without a notification."""
BATCH, KEPT = 200, 1000
AT_ONCE = 8
"""Number of subscribers woken before the feed yields to other tasks.

If fifty streams write without a pause, every other response waits.
"""


@dataclass(frozen=True)
class EncodedEvent:
    """An event and the bytes of its SSE message."""

    id: int
    type: str
    deployment: int | None
    line: bytes


@dataclass(frozen=True, eq=False)
class Subscription:
    """A waiting subscriber and its filters; None matches everything."""

    deployment: int | None
    types: Collection[str] | None
    news: asyncio.Event = field(default_factory=asyncio.Event)

    def concerns(self, event: EncodedEvent) -> bool:
        return self.deployment in (None, event.deployment) and (self.types is None or event.type in self.types)


def encode(event: Event) -> EncodedEvent:
    data = json.dumps(present_event(event), ensure_ascii=False)
    line = format_sse_event(event=event.type, id=str(event.id), data_str=data)
    return EncodedEvent(event.id or 0, event.type, event.deployment, line)


def newest(session: Session) -> int:
    """Return the id of the last event, 0 if there is none."""
    return session.exec(select(func.max(col(Event.id)))).one() or 0


class EventFeed:
    """Polls the event table while there are subscribers, and wakes those that a new event concerns."""

    def __init__(self, store: Store, notifier: ChangeNotifier, stopping: asyncio.Event) -> None:
        self._store = store
        self._notifier = notifier
        self._stopping = stopping
        self._followers: list[Subscription] = []
        self._recent: deque[EncodedEvent] = deque(maxlen=KEPT)
        self._last: int | None = None
        """Id of the last event read; None while there are no subscribers."""
        self._looking: list[asyncio.Task[None]] = []

    @asynccontextmanager
    async def subscribe(
        self, deployment: int | None = None, types: Collection[str] | None = None
    ) -> AsyncIterator[asyncio.Event]:
        """Subscribe to the events of `deployment` (default: all) with one of `types` (default: all).

        Yields an asyncio.Event that is set at every such event and when Sluice stops. Clear the asyncio.Event before
        you read the events.
        """
        mine = Subscription(deployment, types)
        self._followers.append(mine)
        if not self._looking:
            self._looking = [asyncio.create_task(self._poll()), asyncio.create_task(self._stop())]
        try:
            yield mine.news
        finally:
            self._followers = [each for each in self._followers if each is not mine]
            if not self._followers:
                while self._looking:
                    self._looking.pop().cancel()
                self._last = None

    async def since(self, after: int) -> list[EncodedEvent]:
        """Return the next events with an id above `after`, at most BATCH."""
        first = self._recent[0].id if self._recent else None
        if self._last is not None and (after >= self._last or (first is not None and after >= first - 1)):
            newer = list(takewhile(lambda each: each.id > after, reversed(self._recent)))
            return newer[::-1][:BATCH]
        return [encode(event) for event in await self._store.read(lambda session: since(session, after, limit=BATCH))]

    async def _poll(self) -> None:
        self._recent.clear()
        last = await self._store.read(newest)
        while True:
            woken = self._notifier.wait()
            try:
                found = await self._store.read(lambda session, after=last: since(session, after, limit=BATCH))  # type: ignore[misc]
            except Exception:
                log.exception("the events could not be read")
                found = []
            news = [encode(event) for event in found]
            self._recent += news
            first_look, self._last = self._last is None, found[-1].id if found else last
            last = self._last or last
            for number, follower in enumerate(self._followers, 1):
                if first_look or any(map(follower.concerns, news)):
                    follower.news.set()
                if number % AT_ONCE == 0:
                    await asyncio.sleep(0)
            await asyncio.sleep(PACE)
            if len(found) < BATCH:
                await until(woken, LOOK)

    async def _stop(self) -> None:
        await self._stopping.wait()
        for follower in self._followers:
            follower.news.set()


async def until(event: asyncio.Event, seconds: float) -> None:
    """Wait until `event` is set, at most `seconds`."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return
