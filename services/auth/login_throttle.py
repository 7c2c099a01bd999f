"""Limit of failed sign-ins for each client address, so a guessing client does not lock out others."""

from __future__ import annotations

import ipaddress
from collections import OrderedDict, deque

from services.clock import Clock

MAX_FAILURES, FAILURE_WINDOW = 10, 300.0
"""Maximum failures of an address within this many seconds."""
MAX_ADDRESSES = 10_000
"""Maximum addresses recorded. A client with more addresses is not stopped by counting."""


class LoginThrottle:
    """Counter of failed sign-ins, in memory only; a restart resets the counts."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._failures: OrderedDict[str, deque[float]] = OrderedDict()

    def wait(self, remote: str | None) -> float:
        """Return the seconds until this address may try again; 0 if it may now."""
        failures = self._failures.get(_throttle_key(remote))
        if failures is None or len(failures) < MAX_FAILURES:
            return 0.0
        return max(0.0, failures[0] + FAILURE_WINDOW - self._clock.now())

    def failed(self, remote: str | None) -> None:
        """Record a failure. Only the last MAX_FAILURES of an address are kept."""
        key = _throttle_key(remote)
        self._failures.setdefault(key, deque(maxlen=MAX_FAILURES)).append(self._clock.now())
        self._failures.move_to_end(key)
        if len(self._failures) > MAX_ADDRESSES:
            self._failures.popitem(last=False)


def _throttle_key(remote: str | None) -> str:
    """Return the key to count by: the address, or the /64 network of an IPv6 address.

    An IPv6 customer has at least a /64 and can use every address in it.
    """
    try:
        address = ipaddress.ip_address(remote or "")
    except ValueError:
        return remote or ""
    return str(ipaddress.ip_network((address, 64), strict=False)) if address.version == 6 else str(address)
