"""Time that one run of Sluice can trust."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from functools import lru_cache
from typing import Protocol


class Clock(Protocol):
    """Seconds since the epoch, never going back while one process runs."""

    def now(self) -> float: ...


class SystemClock:
    """The wall clock read once at start, then carried on by the monotonic clock.

    Deadlines in the store are absolute, so a restart can re-arm them; within one run somebody setting the host's
    clock must neither fail nor stall a deployment (design.md §4).
    """

    def __init__(self) -> None:
        self._offset = time.time() - time.monotonic()

    def now(self) -> float:
        return self._offset + time.monotonic()


@lru_cache(maxsize=4096)
def rfc3339(seconds: float) -> str:
    """Seconds since the epoch → RFC 3339 in UTC with milliseconds, as every time in the API is written."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
