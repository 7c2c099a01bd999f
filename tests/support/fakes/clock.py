"""A clock that moves only when a test moves it."""

from __future__ import annotations

import asyncio
import heapq
from itertools import count


class FakeClock:
    """Fake of services.clock.Clock.

    `sleep` waits for `advance`, which wakes sleepers in the order of their times.
    """

    def __init__(self, now: float = 1_000_000.0) -> None:
        self._now = now
        self._order = count()
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []

    def now(self) -> float:
        return self._now

    async def sleep(self, seconds: float) -> None:
        woken = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._now + max(0.0, seconds), next(self._order), woken))
        await woken

    def jump(self, seconds: float) -> None:
        """Move the time without waking sleepers, for code without tasks."""
        self._now += seconds

    async def advance(self, seconds: float) -> None:
        """Move the time by this many seconds, and let each sleeper run at its own time."""
        until = self._now + seconds
        await idle()
        while self._sleepers and self._sleepers[0][0] <= until:
            at, _, woken = heapq.heappop(self._sleepers)
            self._now = max(self._now, at)
            if not woken.done():
                woken.set_result(None)
            await idle()
        self._now = until
        await idle()


async def idle(turns: int = 20) -> None:
    """Let other tasks run until they wait, for at most `turns` iterations of the event loop."""
    for _ in range(turns):
        await asyncio.sleep(0)
