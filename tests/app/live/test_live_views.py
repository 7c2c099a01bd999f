"""Live views of open pages: an event of a service is read for its own pages only, and each page is drawn once for all."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from sqlmodel import Session

from app.live import event_feed, live_views
from app.live.event_feed import EventFeed
from app.live.live_views import Fragments, LiveView, LiveViews, Rendering
from services.rollouts.state.runtime_status import RuntimeStatus
from services.store.events import ChangeNotifier, append_event
from services.store.open import open_store

pytestmark = pytest.mark.anyio


class Pages:
    """Pages about services; counts how often each is drawn."""

    def __init__(self, data: Path) -> None:
        self.store, self.listeners, self.live = open_store(data), ChangeNotifier(), RuntimeStatus()
        self.feed = EventFeed(self.store, self.listeners, asyncio.Event())
        self.views = LiveViews(self.store, self.feed, self.live)
        self.drawn: Counter[str] = Counter()
        self._open = AsyncExitStack()

    async def open(self, service: str) -> LiveView:
        async def load() -> None:
            return None

        def render(_session: Session, _loaded: Any) -> Fragments:
            self.drawn[service] += 1
            return Fragments({"count": str(self.drawn[service])})

        rendering = Rendering(lambda: self.views.version_of(service), load, render, 3600)
        return await self._open.enter_async_context(self.views.watch(service, rendering))

    async def happens(self, service: str) -> None:
        await self.store.write(lambda session: append_event(session, 1000.0, "progressing", service=service))
        self.listeners.notify()

    async def close(self) -> None:
        await self._open.aclose()
        self.store.close()


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Pages]:
    monkeypatch.setattr(event_feed, "MIN_POLL_SECONDS", 0.0)
    monkeypatch.setattr(live_views, "MIN_RENDER_SECONDS", 0.0)
    made = Pages(tmp_path)
    yield made
    await made.close()


async def heard(pages: Pages, service: str) -> None:
    """Wait until a page of the service has been redrawn for an event of it."""
    page = await pages.open(service)
    await page.fragments()
    changed = page.next()
    await pages.happens(service)
    await asyncio.wait_for(changed.wait(), 20)


async def test_event_of_a_service_redraws_only_its_own_page(pages: Pages) -> None:
    await heard(pages, "first")
    web, other = await pages.open("web"), await pages.open("other")
    await web.fragments(), await other.fragments()
    before, changed = pages.drawn.copy(), web.next()
    await pages.happens("web")
    await asyncio.wait_for(changed.wait(), 20)
    await heard(pages, "last")
    assert pages.drawn["web"] == before["web"] + 1
    assert pages.drawn["other"] == before["other"]
    assert await other.fragments() == Fragments({"count": str(before["other"])})


async def test_requests_in_flight_redraw_a_page_without_an_event(pages: Pages) -> None:
    await heard(pages, "first")
    web = await pages.open("web")
    await web.fragments()
    before, changed = pages.drawn["web"], web.next()
    pages.live.set_in_flight({"web-r1-1": 3})
    pages.listeners.notify()
    await asyncio.wait_for(changed.wait(), 20)
    assert pages.drawn["web"] == before + 1


async def test_event_before_the_first_read_of_the_feed_is_not_missed(pages: Pages, monkeypatch: pytest.MonkeyPatch) -> None:
    poll, gate = pages.feed._poll, asyncio.Event()

    async def late() -> None:
        await gate.wait()
        await poll()

    monkeypatch.setattr(pages.feed, "_poll", late)
    web = await pages.open("web")
    await web.fragments()
    changed = web.next()
    await pages.happens("web")
    gate.set()
    await asyncio.wait_for(changed.wait(), 20)


async def test_live_view_of_a_page_is_shared_by_its_viewers(pages: Pages) -> None:
    first, second = await pages.open("web"), await pages.open("web")
    assert first is second


async def test_runtime_status_assigns_instances_to_services_by_their_id(pages: Pages) -> None:
    pages.live.set_in_flight({"web-r1-1": 2, "web-r-r4-1": 1, "idle-r1-1": 0})
    pages.live.set_probe("web-r1-2", {"ok": False, "error": "refused", "at": 1.0})
    reported = pages.live.by_service()
    assert reported["web"] == [("web-r1-1", 2), ("web-r1-2", False, "refused")]
    assert reported["web-r"] == [("web-r-r4-1", 1)]
    assert "idle" not in reported
