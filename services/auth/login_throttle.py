"""How often somebody may fail to sign in, counted by the address they come from: one that guesses locks nobody else out."""

from __future__ import annotations

import ipaddress
from collections import OrderedDict, deque

from services.clock import Clock

MAX_FAILURES, WINDOW = 10, 300.0
"""Failures that an address may have within so many seconds."""
MAX_ADDRESSES = 10_000
"""Addresses at most: who has more of them than that is not stopped by counting."""


class LoginThrottle:
    """In memory alone: a restart forgives."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._failures: OrderedDict[str, deque[float]] = OrderedDict()

    def wait(self, remote: str | None) -> float:
        """Seconds until this address may try again; 0 when it may now."""
        failures = self._failures.get(_who(remote))
        if failures is None or len(failures) < MAX_FAILURES:
            return 0.0
        return max(0.0, failures[0] + WINDOW - self._clock.now())

    def failed(self, remote: str | None) -> None:
        """One more; the oldest of MAX_FAILURES falls out."""
        who = _who(remote)
        self._failures.setdefault(who, deque(maxlen=MAX_FAILURES)).append(self._clock.now())
        self._failures.move_to_end(who)
        if len(self._failures) > MAX_ADDRESSES:
            self._failures.popitem(last=False)


def _who(remote: str | None) -> str:
    """An IPv6 customer has a /64 at least, and every address in it."""
    try:
        address = ipaddress.ip_address(remote or "")
    except ValueError:
        return remote or ""
    return str(ipaddress.ip_network((address, 64), strict=False)) if address.version == 6 else str(address)
