"""Logs of one or several instances: read in order of time, or followed. Secrets are masked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import Any, Self

import anyio.to_thread
from sqlmodel import Session

from services.engine.port import Engine, EngineError
from services.masking import Mask, log_mask
from services.store.events import ChangeNotifier
from services.store.tables import Instance, Revision

GONE = "instance_gone"
MAX_QUEUED_LINES = 1000
"""Maximum lines that wait for their reader; then the engine's stream is paused, too."""
LONG_LINE_CHARACTERS = 2048
"""Minimum characters of a line that is masked on a thread instead of the event loop."""
CATCH_UP_LINES = 1000
"""Maximum lines of an instance that are read again after its stream ended."""


@dataclass(frozen=True)
class Line:
    """A line of a log.

    `at` is the engine's time of the line: RFC 3339 in UTC with nanoseconds. It always has the same length, so it
    sorts as text.
    """

    instance: str
    at: str
    text: str


@dataclass(frozen=True)
class LogSource:
    """An instance whose log is read, its container's id if known, and the mask of its secrets."""

    instance: str
    mask: Mask
    container: str | None = None

    def reader(self) -> Callable[[str], Line]:
        """Return a function that converts the engine's lines, in order, to Lines."""
        mask_line = self.mask.lines()

        def line(stamped: str) -> Line:
            at, _, text = stamped.partition(" ")
            return Line(self.instance, at, mask_line(text))

        return line


def source_of(session: Session, row: Instance, masks: dict[int, Mask] | None = None) -> LogSource:
    """Return the log source of an instance. `masks`: cache of the service's masks by revision."""
    known = masks if masks is not None else {}
    if row.revision not in known:
        revision = session.get(Revision, (row.service, row.revision))
        known[row.revision] = log_mask(revision.effective if revision is not None else {})
    return LogSource(row.id, known[row.revision], row.container_id)


async def read(engine: Engine, sources: Sequence[LogSource], *, tail: int, since: float | None) -> list[Line]:
    """Return the last `tail` lines of each source, oldest first.

    Raises EngineError, except for instances that no longer exist.
    """
    texts = await asyncio.gather(*(_read(engine, source, tail, since) for source in sources))
    return sorted((line for lines in texts for line in lines), key=lambda line: line.at)


async def _read(engine: Engine, source: LogSource, tail: int, since: float | None) -> list[Line]:
    try:
        text = await engine.logs(source.instance, source.container, tail=tail, since=since, timestamps=True)
    except EngineError as error:
        if error.reason != GONE:
            raise
        return []
    return await anyio.to_thread.run_sync(lambda: [*map(source.reader(), filter(None, text.split("\n")))])


class LogFollower:
    """Follower of the logs of the instances that `find_sources` returns; an asynchronous context manager.

    `find_sources` is called again after every change in the store. Each log begins with its last `tail` lines. With
    `to_the_end`, the follower ends when the logs of the first `find_sources` have ended.
    """

    def __init__(
        self,
        engine: Engine,
        notifier: ChangeNotifier,
        find_sources: Callable[[], Awaitable[Sequence[LogSource]]],
        *,
        tail: int,
        since: float | None,
        to_the_end: bool,
    ) -> None:
        self._engine = engine
        self._notifier = notifier
        self._find_sources = find_sources
        self._tail, self._since, self._to_the_end = tail, since, to_the_end
        self._lines: asyncio.Queue[Line] = asyncio.Queue(MAX_QUEUED_LINES)
        self._last: dict[str, str] = {}
        self._unread: set[str] = set()
        """Instances of the first `find_sources` if `tail` is 0: their earlier lines are skipped."""
        self._readers: dict[str, asyncio.Task[None]] = {}

    async def __aenter__(self) -> Self:
        self._follower = asyncio.create_task(self._run())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        tasks = [self._follower, *self._readers.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def next(self) -> list[Line] | None:
        """Wait for new lines and return them; None at the end.

        Raises EngineError if the engine does not answer.
        """
        first = asyncio.ensure_future(self._lines.get())
        try:
            await asyncio.wait({first, self._follower}, return_when=asyncio.FIRST_COMPLETED)
            if not first.done():
                return self._follower.result()
        finally:
            first.cancel()
        lines = [first.result()]
        while not self._lines.empty():
            lines.append(self._lines.get_nowait())
        return lines

    async def _run(self) -> None:
        changed = self._notifier.wait()
        sources = await self._find_sources()
        self._unread = {source.instance for source in sources} if self._tail == 0 else set()
        for line in await read(self._engine, sources, tail=self._tail, since=self._since):
            await self._pass_on(line)
        while True:
            for source in sources:
                reader = self._readers.get(source.instance)
                if reader is None or reader.done():
                    self._readers[source.instance] = asyncio.create_task(self._follow(source))
            if self._to_the_end:
                await asyncio.gather(*self._readers.values())
                return
            await changed.wait()
            changed = self._notifier.wait()
            sources = await self._find_sources()

    async def _follow(self, source: LogSource) -> None:
        """Follow one log to its end.

        If the instance no longer exists or its stream broke off, the next `find_sources` starts the log again.
        """
        last = self._last.get(source.instance)
        since = seconds_of(last) if last is not None else self._since
        tail = 0 if last is None and source.instance in self._unread else CATCH_UP_LINES
        stamped = self._engine.follow_logs(source.instance, source.container, tail=tail, since=since, timestamps=True)
        read_line = source.reader()
        try:
            async with aclosing(_closeable(stamped)) as lines:
                async for line in lines:
                    quick = len(line) <= LONG_LINE_CHARACTERS
                    await self._pass_on(read_line(line) if quick else await anyio.to_thread.run_sync(read_line, line))
        except EngineError:
            if self._to_the_end:
                raise

    async def _pass_on(self, line: Line) -> None:
        """Pass a line on, once: a resumed stream begins with the last line seen."""
        if line.at > self._last.get(line.instance, ""):
            self._last[line.instance] = line.at
            await self._lines.put(line)


async def _closeable(lines: Any) -> AsyncGenerator[str]:
    try:
        async for line in lines:
            yield line
    finally:
        if isinstance(lines, AsyncGenerator):
            await lines.aclose()


def seconds_of(at: str) -> float:
    """Return a line's time as seconds since 1970. Raises ValueError if it is not a time."""
    return datetime.fromisoformat(at).timestamp()
