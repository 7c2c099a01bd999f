"""One drawing of a page's live parts for all who look at it: fifty open pages cost one look at the store, not fifty."""

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
"""Seconds between two looks at least: a busy deployment wakes the listeners more often than anybody can read."""
SHARE = 20
"""A drawing is followed by so many times the processor time that it took of rest: no page costs more than a twentieth of a
core, however much happens and however many look at it."""


@dataclass(frozen=True)
class Fragments:
    """Each live part's name → its HTML. `rows`: the rows of the part `list`, in their order, each a part of its own."""

    fixed: Mapping[str, str]
    rows: Mapping[str, str] = field(default_factory=dict)
    list: str = ""

    def since(self, before: Fragments | None) -> dict[str, str]:
        """What somebody who has seen `before` needs: the changed parts; the list whole only when its rows are others."""
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
"""What must be asked of others than the store before a look."""
Stamp = Callable[[], object]
"""What differs when the page may differ."""
Draw = Callable[[Session, Any], Fragments | None]
"""None when there is no such thing (any more). With what was asked before."""


class ChangeTracker:
    """What was heard last of each service, read at each wake-up for all pages: its newest event, and what is live."""

    def __init__(self, store: Store, runtime_status: RuntimeStatus) -> None:
        self._store, self._live = store, runtime_status
        self._events: dict[str | None, int] = {}
        self._now: Mapping[str | None, object] = {}
        self.newest: int | None = None
        """The last event of all; None before the first look."""

    def of(self, service: str | None) -> object:
        """Differs when what a page shows of the service may: every change of a row has its event. The first look makes a
        difference as well: it takes all before it for known, and a page may have been drawn earlier."""
        return self.newest is None, self._events.get(service), self._now.get(service)

    async def read(self) -> None:
        await self._store.read(self._read)
        self._now = self._live.by_service()

    def forget(self) -> None:
        """Nobody looks any more: whoever comes next begins with what is then."""
        self.newest = None
        self._events, self._now = {}, {}

    def _read(self, session: Session) -> None:
        if self.newest is None:
            self.newest = session.exec(select(func.max(Event.id))).one() or 0
            return
        for id, service in session.exec(select(Event.id, Event.service).where(col(Event.id) > self.newest)):
            self._events[service] = self.newest = max(id or 0, self.newest)


class VersionedCache:
    """What was made of the present version of something, until there is another. Emptied when there is too much of it."""

    MOST = 4000

    def __init__(self) -> None:
        self._kept: dict[Hashable, tuple[Any, Any]] = {}

    def of(self, key: Hashable, version: Any, make: Callable[[], T]) -> T:
        """`make()`, or what it made before of the same version."""
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
    """The pages that somebody looks at now, each drawn once. A page is known by its key while anybody watches it.

    One task looks at what has happened, at most once in PACE, and wakes only those pages that it concerns."""

    def __init__(self, store: Store, notifier: ChangeNotifier, runtime_status: RuntimeStatus) -> None:
        self._store = store
        self._notifier = notifier
        self._watched: dict[Hashable, LiveView] = {}
        self._looking: asyncio.Task[None] | None = None
        self.memo = VersionedCache()
        self.news = ChangeTracker(store, runtime_status)

    @asynccontextmanager
    async def watch(self, key: Hashable, every: float, ask: Ask, stamp: Stamp, draw: Draw) -> AsyncIterator[LiveView]:
        """`every`: seconds after which it is looked though nothing was heard."""
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
    """One page's, drawn anew as long as anybody watches."""

    def __init__(self, store: Store, every: float, ask: Ask, stamp: Stamp, draw: Draw) -> None:
        self.watchers = 0
        self.told = VersionedCache()
        """What was said to those who watch, made once for all of them."""
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
        """Take this before `parts`, then wait on it: it is set when they are others."""
        return self._changed

    async def parts(self) -> Fragments | None:
        """As they are now. Raises what kept it from being drawn."""
        await self._drawn.wait()
        if self.task.done():
            self.task.result()
        return self._parts

    def hear(self) -> None:
        """There may be news: is any of them about this page?"""
        if self._stamp() != self._seen:
            self._heard.set()

    def _over(self, _task: asyncio.Task[None]) -> None:
        """Whoever waits must learn of it."""
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
