"""Event loop with virtual time: sleeping tasks wake immediately, in the order of their times.

Hours pass in no time.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

T = TypeVar("T")


class DeadlockError(AssertionError):
    """Every task waits, and nothing will ever wake one."""


class _Selector(selectors.SelectSelector):
    """Selector that never waits: when it returns, its clock has advanced by the timeout."""

    passed = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise DeadlockError("everybody waits, and nothing will ever wake anyone")
        self.passed += max(timeout, 0.0)
        return super().select(0)


class JumpingLoop(asyncio.SelectorEventLoop):
    """Event loop for code that waits only by asyncio's own means; threads and sockets would lag behind."""

    def __init__(self) -> None:
        self._jumps = _Selector()
        super().__init__(self._jumps)

    def time(self) -> float:
        return self._jumps.passed


class LoopClock:
    """services.clock.Clock on the running loop's time. No two readings are equal."""

    def __init__(self, start: float = 1_000_000.0) -> None:
        self._start = start
        self._readings = 0

    def now(self) -> float:
        self._readings += 1
        return self._start + asyncio.get_running_loop().time() + self._readings * 1e-6


def run(scenario: Callable[[], Awaitable[T]]) -> T:
    """Run `scenario` to its end in virtual time, and return its result."""

    async def whole() -> Any:
        return await scenario()

    with asyncio.Runner(loop_factory=JumpingLoop) as runner:
        result: T = runner.run(whole())
        return result
