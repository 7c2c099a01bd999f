"""Live page content rendered once for all viewers: fifty open pages cost one store query, not fifty."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from sqlmodel import Session

from app.live.event_feed import EventFeed
from services.rollouts.state.runtime_status import RuntimeStatus
from services.store.database import Store

T = TypeVar("T")
MIN_RENDER_SECONDS = 0.1
"""Minimum seconds between two renderings of a page; a busy deployment changes more often than a person can read."""
IDLE_RATIO = 20
"""Ratio of idle time to the processor time of a rendering.

A page then uses at most a twentieth of a core, independent of the number of changes and viewers.
"""
MAX_CACHED = 4000
"""Maximum entries of a VersionedCache."""


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


@dataclass(frozen=True)
class Rendering:
    """How a page is rendered.

    `version` returns a value that differs if the page may differ. `load` fetches the data that does not come from the
    store, before each rendering. `render` renders the page from the store and the result of `load`; it returns None if
    the object does not exist. After `interval` seconds the page is rendered although its version is the same.
    """

    version: Callable[[], object]
    load: Callable[[], Awaitable[Any]]
    render: Callable[[Session, Any], Fragments | None]
    interval: float


class VersionedCache:
    """Cache of one value per key and version; emptied when it holds MAX_CACHED entries."""

    def __init__(self) -> None:
        self._entries: dict[Hashable, tuple[Any, Any]] = {}

    def get(self, key: Hashable, version: Any, make: Callable[[], T]) -> T:
        """Return `make()`, or the cached value of the same version."""
        entry = self._entries.get(key)
        if entry is not None and entry[0] == version:
            cached: T = entry[1]
            return cached
        if len(self._entries) >= MAX_CACHED:
            self._entries.clear()
        value = make()
        self._entries[key] = (version, value)
        return value


class LiveViews:
    """The live views of the open pages; a view exists while its key has viewers.

    One task follows the event feed and wakes only the views that are concerned.
    """

    def __init__(self, store: Store, feed: EventFeed, runtime_status: RuntimeStatus) -> None:
        self._store = store
        self._feed = feed
        self._runtime_status = runtime_status
        self._status_by_service: Mapping[str | None, object] = {}
        self._views: dict[Hashable, LiveView] = {}
        self._following: asyncio.Task[None] | None = None
        self.cache = VersionedCache()

    def version_of(self, service: str | None) -> object:
        """Return a value that changes if the page of `service` may change: new event or new runtime status.

        Every change of a row has its event. The feed's first read makes a difference too: it takes all earlier events as
        known, and a page may have been rendered before it.
        """
        return self._feed.newest is None, self._feed.newest_of(service), self._status_by_service.get(service)

    @asynccontextmanager
    async def watch(self, key: Hashable, rendering: Rendering) -> AsyncIterator[LiveView]:
        """Yield the view of `key`, shared by all its viewers."""
        view = self._views.get(key)
        if view is None:
            view = self._views[key] = LiveView(self._store, rendering)
        if self._following is None:
            self._status_by_service = self._runtime_status.by_service()
            self._following = asyncio.create_task(self._follow())
        view.viewers += 1
        try:
            yield view
        finally:
            view.viewers -= 1
            if not view.viewers:
                del self._views[key]
                view.task.cancel()
            if not self._views and self._following is not None:
                self._following.cancel()
                self._following = None
                self._status_by_service = {}

    async def _follow(self) -> None:
        async with self._feed.subscribe(status_changes=True) as changed:
            while True:
                await changed.wait()
                changed.clear()
                self._status_by_service = self._runtime_status.by_service()
                for view in self._views.values():
                    view.check()


class LiveView:
    """The content of one page, rendered again on each change while there are viewers."""

    def __init__(self, store: Store, rendering: Rendering) -> None:
        self.viewers = 0
        self.messages = VersionedCache()
        """SSE messages to the viewers, encoded once for all of them."""
        self._store, self._rendering = store, rendering
        self._changed = asyncio.Event()
        self._fragments: Fragments | None = None
        self._rendered = asyncio.Event()
        self._outdated = asyncio.Event()
        self._version: object = None
        self._pause = MIN_RENDER_SECONDS
        self.task = asyncio.create_task(self._keep_rendered())
        self.task.add_done_callback(self._wake_all)

    def next(self) -> asyncio.Event:
        """Return an event that is set when the fragments change.

        Take the event before you call `fragments`, then wait for it.
        """
        return self._changed

    async def fragments(self) -> Fragments | None:
        """Return the present fragments. Raises the exception that prevented their rendering."""
        await self._rendered.wait()
        if self.task.done():
            self.task.result()
        return self._fragments

    def check(self) -> None:
        """Wake the rendering if the version of this page changed."""
        if self._rendering.version() != self._version:
            self._outdated.set()

    def _wake_all(self, _task: asyncio.Task[None]) -> None:
        """Wake all waiters so that they see the task's end."""
        self._rendered.set()
        self._changed.set()

    async def _keep_rendered(self) -> None:
        while True:
            self._outdated.clear()
            self._version = self._rendering.version()
            loaded = await self._rendering.load()
            fragments = await self._store.read(partial(self._render, loaded))
            if fragments != self._fragments or not self._rendered.is_set():
                self._fragments = fragments
                changed, self._changed = self._changed, asyncio.Event()
                self._rendered.set()
                changed.set()
            await asyncio.sleep(self._pause)
            with suppress(TimeoutError):
                async with asyncio.timeout(self._rendering.interval):
                    await self._outdated.wait()

    def _render(self, loaded: Any, session: Session) -> Fragments | None:
        began = time.thread_time()
        fragments = self._rendering.render(session, loaded)
        self._pause = max(MIN_RENDER_SECONDS, IDLE_RATIO * (time.thread_time() - began))
        return fragments
