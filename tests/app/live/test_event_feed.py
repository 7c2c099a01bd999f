"""The event feed: a subscriber misses no event, receives none twice, and needs no query of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest
from sqlmodel import Session

from app.live import event_feed
from app.live.event_feed import EventFeed
from services.store.events import ChangeNotifier, append_event
from services.store.open import open_store
from services.store.tables import Event

pytestmark = pytest.mark.anyio
T = TypeVar("T")
FOLLOWERS, DEPLOYMENTS, EACH = 50, 100, 4


class Table:
    """The store's events; counts the reads."""

    def __init__(self, data: Path) -> None:
        self.store = open_store(data)
        self.listeners = ChangeNotifier()
        self.stopping = asyncio.Event()
        self.reads = 0
        self.failures = 0
        """Number of the next reads that fail."""
        self.feed = EventFeed(self, self.listeners, self.stopping)  # type: ignore[arg-type]

    async def read(self, work: Callable[[Session], T]) -> T:
        self.reads += 1
        if self.failures:
            self.failures -= 1
            raise OSError("disk I/O error")
        return await self.store.read(work)

    async def happens(self, deployment: int | None, service: str | None = None) -> int:
        event: Event = await self.store.write(lambda session: _recorded(session, deployment, service))
        self.listeners.notify()
        return event.id or 0


def _recorded(session: Session, deployment: int | None, service: str | None) -> Event:
    event = append_event(session, 1000.0, "progressing", "started", deployment=deployment, service=service)
    session.flush()
    return event


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def table(tmp_path: Path) -> Iterator[Table]:
    made = Table(tmp_path)
    yield made
    made.store.close()


async def followed(table: Table, after: int, last: Callable[[int], bool]) -> list[int]:
    """Return the ids that a stream of all events receives, up to the first one for which `last` is true."""
    ids: list[int] = []
    async with table.feed.subscribe() as changed:
        while not ids or not last(ids[-1]):
            changed.clear()
            found = await table.feed.since(ids[-1] if ids else after)
            ids += [each.id for each in found]
            if not found:
                await asyncio.wait_for(changed.wait(), 20)
    return ids


async def test_event_streams_receive_every_event_in_order_and_share_their_queries(table: Table) -> None:
    wanted = DEPLOYMENTS * EACH
    streams = [asyncio.create_task(followed(table, 0, lambda id: id >= wanted)) for _ in range(FOLLOWERS)]
    for number in range(wanted):
        await table.happens(number % DEPLOYMENTS + 1)
    for ids in await asyncio.gather(*streams):
        assert ids == list(range(1, wanted + 1))
    assert table.reads < wanted, "one look for all, however many follow"


async def test_late_event_stream_receives_earlier_and_later_events(table: Table) -> None:
    for _ in range(3):
        await table.happens(1)
    early = asyncio.create_task(followed(table, 0, lambda id: id >= 5))
    await table.happens(1)
    late = asyncio.create_task(followed(table, 2, lambda id: id >= 5))
    await table.happens(2)
    assert await early == [1, 2, 3, 4, 5]
    assert await late == [3, 4, 5]


async def test_event_notifies_only_its_subscribers(table: Table) -> None:
    async with table.feed.subscribe(1) as mine, table.feed.subscribe(2) as other, table.feed.subscribe() as everything:
        for each in (mine, other, everything):
            await asyncio.wait_for(each.wait(), 20)  # the first read wakes all: earlier events may concern them
            each.clear()
        await table.happens(1)
        await asyncio.wait_for(mine.wait(), 20)
        await asyncio.wait_for(everything.wait(), 20)
        assert not other.is_set()


async def test_stop_of_sluice_wakes_all_subscribers(table: Table) -> None:
    async with table.feed.subscribe(1) as mine:
        await asyncio.wait_for(mine.wait(), 20)
        mine.clear()
        table.stopping.set()
        await asyncio.wait_for(mine.wait(), 20)


async def test_event_feed_without_subscribers_reads_nothing(table: Table) -> None:
    await followed_once(table)
    before = table.reads
    for _ in range(5):
        await table.happens(1)
    assert table.reads == before
    assert await followed(table, 1, lambda id: id >= 6) == [2, 3, 4, 5, 6]


async def followed_once(table: Table) -> None:
    await table.happens(1)
    assert await followed(table, 0, lambda id: id >= 1) == [1]


async def test_notification_without_an_event_wakes_only_subscribers_to_status_changes(table: Table) -> None:
    async with table.feed.subscribe() as events, table.feed.subscribe(status_changes=True) as pages:
        for each in (events, pages):
            await asyncio.wait_for(each.wait(), 20)
            each.clear()
        table.listeners.notify()
        await asyncio.wait_for(pages.wait(), 20)
        assert not events.is_set()


@pytest.mark.parametrize("failures", [1, 2, 3])
async def test_failed_poll_is_repeated_without_another_notification(
    table: Table, monkeypatch: pytest.MonkeyPatch, failures: int
) -> None:
    monkeypatch.setattr(event_feed, "FIRST_RETRY_SECONDS", 0.001)
    table.failures = failures
    async with table.feed.subscribe() as changed:
        await asyncio.wait_for(changed.wait(), 20)
        changed.clear()
        table.failures = failures
        id = await table.happens(1)
        await asyncio.wait_for(changed.wait(), 10)
        assert [each.id for each in await table.feed.since(0)] == [id]


async def test_event_feed_names_the_newest_event_of_each_service(table: Table) -> None:
    async with table.feed.subscribe() as changed:
        await asyncio.wait_for(changed.wait(), 20)
        changed.clear()
        await table.happens(1, "web")
        last = await table.happens(2, "web")
        await table.happens(3, "api")
        while table.feed.newest != last + 1:
            await asyncio.wait_for(changed.wait(), 20)
            changed.clear()
        assert [table.feed.newest_of(each) for each in ("web", "api", "idle")] == [last, last + 1, None]
