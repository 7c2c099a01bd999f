"""What instances write, of one or of many: read in the order of its times, or followed as it comes; secrets masked."""

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
AHEAD = 1000
"""Lines that wait for their reader at most; then the engine's stream waits as well."""
LONG_LINE = 2048
"""Characters from which on masking a line is not done on the event loop."""
CATCH_UP = 1000
"""Lines of one instance at most that are read again after its stream ended."""


@dataclass(frozen=True)
class Line:
    """`at`: the engine's own time of it, RFC 3339 in UTC with nanoseconds, always as long: it sorts as text."""

    instance: str
    at: str
    text: str


@dataclass(frozen=True)
class LogSource:
    """An instance that writes, and the mask of its revision's secrets."""

    instance: str
    mask: Mask

    def reader(self) -> Callable[[str], Line]:
        """Makes a Line of each line of the engine's, which must come in order."""
        masked = self.mask.lines()

        def line(stamped: str) -> Line:
            at, _, text = stamped.partition(" ")
            return Line(self.instance, at, masked(text))

        return line


def source_of(session: Session, row: Instance, masks: dict[int, Mask] | None = None) -> LogSource:
    """`masks`: by revision, those of the service's instances before."""
    known = masks if masks is not None else {}
    if row.revision not in known:
        revision = session.get(Revision, (row.service, row.revision))
        known[row.revision] = log_mask(revision.effective if revision is not None else {})
    return LogSource(row.id, known[row.revision])


async def read(engine: Engine, sources: Sequence[LogSource], *, tail: int, since: float | None) -> list[Line]:
    """The last `tail` lines of each, oldest first. EngineError, but for instances that have gone meanwhile."""
    texts = await asyncio.gather(*(_read(engine, source, tail, since) for source in sources))
    return sorted((line for lines in texts for line in lines), key=lambda line: line.at)


async def _read(engine: Engine, source: LogSource, tail: int, since: float | None) -> list[Line]:
    try:
        text = await engine.logs(source.instance, tail=tail, since=since, timestamps=True)
    except EngineError as error:
        if error.reason != GONE:
            raise
        return []
    return await anyio.to_thread.run_sync(lambda: [*map(source.reader(), filter(None, text.split("\n")))])


class LogFollower:
    """An asynchronous context: lines as they come, of whatever `look` finds, looked for again whenever something happened.

    It begins with the last `tail` lines of each. With `to_the_end` it ends when what was found first has ended.
    """

    def __init__(
        self,
        engine: Engine,
        notifier: ChangeNotifier,
        look: Callable[[], Awaitable[Sequence[LogSource]]],
        *,
        tail: int,
        since: float | None,
        to_the_end: bool,
    ) -> None:
        self._engine = engine
        self._notifier = notifier
        self._look = look
        self._tail, self._since, self._to_the_end = tail, since, to_the_end
        self._lines: asyncio.Queue[Line] = asyncio.Queue(AHEAD)
        self._last: dict[str, str] = {}
        self._unread: set[str] = set()
        """Found first with a `tail` of 0: what they wrote before is not wanted."""
        self._readers: dict[str, asyncio.Task[None]] = {}

    async def __aenter__(self) -> Self:
        self._keeper = asyncio.create_task(self._keep_up())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        tasks = [self._keeper, *self._readers.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def next(self, timeout: float | None = None) -> list[Line] | None:
        """What has come; nothing after `timeout` seconds of quiet; None at the end. EngineError when the engine is away."""
        first = asyncio.ensure_future(self._lines.get())
        try:
            await asyncio.wait({first, self._keeper}, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
            if not first.done():
                return self._keeper.result() if self._keeper.done() else []
        finally:
            first.cancel()
        lines = [first.result()]
        while not self._lines.empty():
            lines.append(self._lines.get_nowait())
        return lines

    async def _keep_up(self) -> None:
        news = self._notifier.wait()
        sources = await self._look()
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
            await news.wait()
            news = self._notifier.wait()
            sources = await self._look()

    async def _follow(self, source: LogSource) -> None:
        """One that has gone, or whose stream broke off, is looked for again when something happens."""
        last = self._last.get(source.instance)
        since = seconds_of(last) if last is not None else self._since
        tail = 0 if last is None and source.instance in self._unread else CATCH_UP
        stamped = self._engine.follow_logs(source.instance, tail=tail, since=since, timestamps=True)
        read_line = source.reader()
        try:
            async with aclosing(_closeable(stamped)) as lines:
                async for line in lines:
                    quick = len(line) <= LONG_LINE
                    await self._pass_on(read_line(line) if quick else await anyio.to_thread.run_sync(read_line, line))
        except EngineError:
            if self._to_the_end:
                raise

    async def _pass_on(self, line: Line) -> None:
        """Once: a stream that is taken up begins with what was seen last."""
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
    """A line's time as seconds since 1970. ValueError for what is none."""
    return datetime.fromisoformat(at).timestamp()
