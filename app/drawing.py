"""One drawing of a page's live parts for all who look at it: fifty open pages cost one look at the store, not fifty."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable, Mapping
from contextlib import asynccontextmanager
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
SHARE = 5
"""A drawing that took long is followed by so many times its length of rest."""


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
        drawing = self._watched.setdefault(key, Drawing(self._store, self._listeners, self.news, every, ask, stamp, draw))
        drawing.watchers += 1
        try:
            yield drawing
        finally:
            drawing.watchers -= 1
            if not drawing.watchers:
                del self._watched[key]


class Drawing:
    """One page's."""

    def __init__(
        self, store: Store, listeners: Listeners, news: News, every: float, ask: Ask, stamp: Stamp, draw: Draw
    ) -> None:
        self.watchers = 0
        self._store, self._listeners, self._news, self._every = store, listeners, news, every
        self._ask, self._stamp, self._draw = ask, stamp, draw
        self._lock = asyncio.Lock()
        self._woken: asyncio.Event | None = None
        self._seen: Hashable = None
        self._parts: Parts | None = None
        self._rests_until = 0.0
        self._looks_again = 0.0

    async def parts(self) -> Parts | None:
        """As they are now."""
        async with self._lock:
            due = time.monotonic() >= self._looks_again
            if due or self._woken is None or self._woken.is_set():
                await asyncio.sleep(self._rests_until - time.monotonic())
                woken = self._listeners.next()
                await self._news.read()
                stamp = self._stamp()
                if due or self._parts is None or stamp != self._seen:
                    asked = await self._ask()
                    self._parts = await self._store.read(partial(self._look, asked))
                    self._seen = stamp
                self._woken = woken
            return self._parts

    def _look(self, asked: Any, session: Session) -> Parts | None:
        began = time.monotonic()
        parts = self._draw(session, asked)
        now = time.monotonic()
        self._rests_until = now + max(PACE, SHARE * (now - began))
        self._looks_again = now + self._every * 0.9  # whoever waits for so long must find it due
        return parts
