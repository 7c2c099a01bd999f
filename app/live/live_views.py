"""Live page content rendered once for all viewers: fifty open pages cost one store query, not fifty."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

import structlog
from sqlmodel import Session, col, func, select

from services.rollouts.state.runtime_status import RuntimeStatus
from services.store.database import Store
from services.store.events import ChangeNotifier
from services.store.tables import Event

T = TypeVar("T")
log = structlog.get_logger(__name__)
PACE = 0.1
"""Minimum seconds between two reads; a busy deployment notifies more often than a person can read."""
SHARE = 20
"""Ratio of idle time to the processor time of a rendering.

A page then uses at most a twentieth of a core, independent of the number of changes and viewers.
"""


@dataclass(frozen=True)
class Fragments:
    """The HTML of each live part by name.

    `rows` holds the rows of the part `list`, in their order; each row is a part too.
    """

    fixed: Mapping[str, str]
    rows: Mapping[str, str] = field(default_factory=dict)
    list: str = ""

    def since(self, before: Fragments | None) -> dict[str, str]:
        """Return the parts that a viewer of `before` needs: the changed ones.

        The list itself is included only if its rows were added, removed or reordered.
        """
        if before is None:
            return dict(self.fixed)
        same_rows = list(before.rows) == list(self.rows)
        changed = {
            n: html for n, html in self.fixed.items() if before.fixed[n] != html and not (n == self.list and same_rows)
        }
        if self.list not in changed:
            changed |= {name: html for name, html in self.rows.items() if before.rows[name] != html}
        return changed


Ask = Callable[[], Awaitable[Any]]
"""Function that fetches the data that does not come from the store, before a rendering."""
Stamp = Callable[[], object]
"""Function whose result differs if the page may differ."""
Draw = Callable[[Session, Any], Fragments | None]
"""Function that renders the page from the store and the result of Ask; None if the object is missing."""


class ChangeTracker:
    """Last known change of each service, read at each notification for all pages.

    A change is the newest event or a new runtime status.
    """

    def __init__(self, store: Store, runtime_status: RuntimeStatus) -> None:
        self._store, self._live = store, runtime_status
        self._events: dict[str | None, int] = {}
        self._now: Mapping[str | None, object] = {}
        self.newest: int | None = None
        """The id of the last event; None before the first read."""

    def of(self, service: str | None) -> object:
        """Return a value that differs if the page of `service` may differ.

        Every change of a row has its event. The first read makes a difference too: it takes all earlier events as
        known, and a page may have been rendered before it.
        """
        return self.newest is None, self._events.get(service), self._now.get(service)

    async def read(self) -> None:
        await self._store.read(self._read)
        self._now = self._live.by_service()

    def forget(self) -> None:
        """Reset the tracker when the last viewer leaves; the next viewer starts with the state of that time."""
        self.newest = None
        self._events, self._now = {}, {}

    def _read(self, session: Session) -> None:
        if self.newest is None:
            self.newest = session.exec(select(func.max(Event.id))).one() or 0
            return
        for id, service in session.exec(select(Event.id, Event.service).where(col(Event.id) > self.newest)):
            self._events[service] = self.newest = max(id or 0, self.newest)


class VersionedCache:
    """Cache of one value per key and version; emptied when it holds MOST entries."""

    MOST = 4000

    def __init__(self) -> None:
        self._kept: dict[Hashable, tuple[Any, Any]] = {}

    def of(self, key: Hashable, version: Any, make: Callable[[], T]) -> T:
        """Return `make()`, or the cached value of the same version."""
        retained = self._kept.get(key)
        if retained is not None and retained[0] == version:
            made: T = retained[1]
            return made
        if len(self._kept) >= self.MOST:
            self._kept.clear()
        made = make()
        self._kept[key] = (version, made)
        return made


class LiveViews:
    """The live views of the open pages; a view exists while its key has viewers.

    One task reads what changed, at most once per PACE seconds, and wakes only the pages that are concerned.
    """

    def __init__(self, store: Store, notifier: ChangeNotifier, runtime_status: RuntimeStatus) -> None:
        self._store = store
        self._notifier = notifier
        self._watched: dict[Hashable, LiveView] = {}
        self._looking: asyncio.Task[None] | None = None
        self.memo = VersionedCache()
        self.news = ChangeTracker(store, runtime_status)

    @asynccontextmanager
    async def watch(self, key: Hashable, every: float, ask: Ask, stamp: Stamp, draw: Draw) -> AsyncIterator[LiveView]:
        """Yield the view of `key`, shared by all its viewers.

        `every` is the number of seconds after which the page is rendered without a notification.
        """
        drawing = self._watched.get(key)
        if drawing is None:
            drawing = self._watched[key] = LiveView(self._store, every, ask, stamp, draw)
        if self._looking is None:
            self._looking = asyncio.create_task(self._look())
        drawing.watchers += 1
        try:
            yield drawing
        finally:
            drawing.watchers -= 1
            if not drawing.watchers:
                del self._watched[key]
                drawing.task.cancel()
            if not self._watched and self._looking is not None:
                self._looking.cancel()
                self._looking = None
                self.news.forget()

    async def _look(self) -> None:
        while True:
            woken = self._notifier.wait()
            try:
                await self.news.read()
            except Exception:
                log.exception("what has happened could not be read")
            for drawing in self._watched.values():
                drawing.hear()
            await asyncio.sleep(PACE)
            await woken.wait()


class LiveView:
    """The content of one page, rendered again on each change while there are viewers."""

    def __init__(self, store: Store, every: float, ask: Ask, stamp: Stamp, draw: Draw) -> None:
        self.watchers = 0
        self.told = VersionedCache()
        """SSE messages to the viewers, encoded once for all of them."""
        self._store, self._every = store, every
        self._ask, self._stamp, self._draw = ask, stamp, draw
        self._changed = asyncio.Event()
        self._parts: Fragments | None = None
        self._drawn = asyncio.Event()
        self._heard = asyncio.Event()
        self._seen: object = None
        self._rest = 0.0
        self.task = asyncio.create_task(self._keep())
        self.task.add_done_callback(self._over)

    def next(self) -> asyncio.Event:
        """Return an event that is set when the parts change.

        Take the event before you call `parts`, then wait for it.
        """
        return self._changed

    async def parts(self) -> Fragments | None:
        """Return the present parts. Raises the exception that prevented their rendering."""
        await self._drawn.wait()
        if self.task.done():
            self.task.result()
        return self._parts

    def hear(self) -> None:
        """Wake the rendering if the stamp of this page changed."""
        if self._stamp() != self._seen:
            self._heard.set()

    def _over(self, _task: asyncio.Task[None]) -> None:
        """Wake all waiters so that they see the task's end."""
        self._drawn.set()
        self._changed.set()

    async def _keep(self) -> None:
        while True:
            self._heard.clear()
            self._seen = self._stamp()
            asked = await self._ask()
            parts = await self._store.read(partial(self._look, asked))
            if parts != self._parts or not self._drawn.is_set():
                self._parts = parts
                changed, self._changed = self._changed, asyncio.Event()
                self._drawn.set()
                changed.set()
            await asyncio.sleep(self._rest)
            with suppress(TimeoutError):
                async with asyncio.timeout(self._every):
                    await self._heard.wait()

    def _look(self, asked: Any, session: Session) -> Fragments | None:
        began = time.thread_time()
        parts = self._draw(session, asked)
        self._rest = SHARE * (time.thread_time() - began)
        return parts
