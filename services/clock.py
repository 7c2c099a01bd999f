"""Clocks that never go back while one Sluice process runs, and the time format of the API."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from functools import lru_cache
from typing import Protocol


class Clock(Protocol):
    """A source of the time in seconds since the epoch, which never goes back while one process runs."""

    def now(self) -> float: ...


class SystemClock:
    """A clock that reads the wall clock once at start and then follows the monotonic clock.

    Deadlines in the store are absolute, so that a restart can re-arm them. A change of the host's clock while the process
    runs must neither fail nor stall a deployment (docs/outages.md).
    """

    def __init__(self) -> None:
        self._offset = time.time() - time.monotonic()

    def now(self) -> float:
        return self._offset + time.monotonic()


@lru_cache(maxsize=4096)
def rfc3339(seconds: float) -> str:
    """Return a time in seconds since the epoch as RFC 3339 in UTC with milliseconds.

    The API writes every time in this format.
    """
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
