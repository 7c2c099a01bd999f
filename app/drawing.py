"""One drawing of a page's live parts for all who look at it: fifty open pages cost one look at the store, not fifty."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from sqlmodel import Session, col, func, select

from services.store.db import Store
from services.store.events import Listeners
from services.store.tables import Event

T = TypeVar("T")
PACE = 0.1
"""Seconds between two drawings at least: a busy deployment wakes the listeners more often than anybody can read."""
SHARE = 20
"""A drawing is followed by so many times the processor time that it took of rest: no page costs more than a twentieth of a
core, however much happens and however many look at it."""


@dataclass(frozen=True)
class Parts:
    """Each live part's name → its HTML. `rows`: the rows of the part `list`, in their order, each a part of its own."""

    fixed: Mapping[str, str]
    rows: Mapping[str, str] = field(default_factory=dict)
    list: str = ""

    def since(self, before: Parts | None) -> dict[str, str]:
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
Stamp = Callable[[], Hashable]
"""What differs when the page may differ."""
Draw = Callable[[Session, Any], Parts | None]
"""None when there is no such thing (any more). With what was asked before."""


class News:
    """The newest event of each service, read once at each wake-up for all pages. Those before the first look are 0."""

    def __init__(self, store: Store, listeners: Listeners) -> None:
        self._store, self._listeners = store, listeners
        self._lock = asyncio.Lock()
        self._woken: asyncio.Event | None = None
        self._of: dict[str | None, int] = {}
        self.newest: int | None = None

    def of(self, service: str | None) -> int:
        return self._of.get(service, 0)

    async def read(self) -> None:
        async with self._lock:
            if self._woken is None or self._woken.is_set():
                woken = self._listeners.next()
                await self._store.read(self._read)
                self._woken = woken

    def _read(self, session: Session) -> None:
        if self.newest is None:
            self.newest = session.exec(select(func.max(Event.id))).one() or 0
            return
        for id, service in session.exec(select(Event.id, Event.service).where(col(Event.id) > self.newest)):
            self._of[service] = self.newest = max(id or 0, self.newest)


class Memo:
    """What was made of the present version of something, until there is another. Emptied when there is too much of it."""

    MOST = 4000

    def __init__(self) -> None:
        self._kept: dict[Hashable, tuple[Any, Any]] = {}

    def of(self, key: Hashable, version: Any, make: Callable[[], T]) -> T:
        """`make()`, or what it made before of the same version."""
        kept = self._kept.get(key)
        if kept is not None and kept[0] == version:
            made: T = kept[1]
            return made
        if len(self._kept) >= self.MOST:
            self._kept.clear()
        made = make()
        self._kept[key] = (version, made)
        return made


class Drawings:
    """The pages that somebody looks at now, each drawn once. A page is known by its key while anybody watches it."""

    def __init__(self, store: Store, listeners: Listeners) -> None:
        self._store = store
        self._listeners = listeners
        self._watched: dict[Hashable, Drawing] = {}
        self.memo = Memo()
        self.news = News(store, listeners)

    @asynccontextmanager
    async def watch(self, key: Hashable, every: float, ask: Ask, stamp: Stamp, draw: Draw) -> AsyncIterator[Drawing]:
        """`every`: seconds after which it is looked though nobody was woken."""
        drawing = self._watched.get(key)
        if drawing is None:
            drawing = self._watched[key] = Drawing(self._store, self._listeners, self.news, every, ask, stamp, draw)
        drawing.watchers += 1
        try:
            yield drawing
        finally:
            drawing.watchers -= 1
            if not drawing.watchers:
                del self._watched[key]
                drawing.task.cancel()


class Drawing:
    """One page's, drawn anew as long as anybody watches."""

    def __init__(
        self, store: Store, listeners: Listeners, news: News, every: float, ask: Ask, stamp: Stamp, draw: Draw
    ) -> None:
        self.watchers = 0
        self._store, self._listeners, self._news, self._every = store, listeners, news, every
        self._ask, self._stamp, self._draw = ask, stamp, draw
        self._changed = asyncio.Event()
        self._parts: Parts | None = None
        self._drawn = asyncio.Event()
        self._rest = 0.0
        self.task = asyncio.create_task(self._keep())
        self.task.add_done_callback(self._over)

    def next(self) -> asyncio.Event:
        """Take this before `parts`, then wait on it: it is set when they are others."""
        return self._changed

    async def parts(self) -> Parts | None:
        """As they are now. Raises what kept it from being drawn."""
        await self._drawn.wait()
        if self.task.done():
            self.task.result()
        return self._parts

    def _over(self, _task: asyncio.Task[None]) -> None:
        """Whoever waits must learn of it."""
        self._drawn.set()
        self._changed.set()

    async def _keep(self) -> None:
        seen: Hashable = None
        looks_again = 0.0
        while True:
            woken = self._listeners.next()
            await self._news.read()
            stamp = self._stamp()
            if stamp != seen or time.monotonic() >= looks_again:
                asked = await self._ask()
                parts = await self._store.read(partial(self._look, asked))
                seen, looks_again = stamp, time.monotonic() + self._every
                if parts != self._parts or not self._drawn.is_set():
                    self._parts = parts
                    changed, self._changed = self._changed, asyncio.Event()
                    self._drawn.set()
                    changed.set()
                await asyncio.sleep(self._rest)
            with suppress(TimeoutError):
                await asyncio.wait_for(woken.wait(), max(0.0, looks_again - time.monotonic()))

    def _look(self, asked: Any, session: Session) -> Parts | None:
        began = time.thread_time()
        parts = self._draw(session, asked)
        self._rest = max(PACE, SHARE * (time.thread_time() - began))
        return parts
