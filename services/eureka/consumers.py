"""Consumers that fetch the registry: how often they fetch, and how old their cached lists may be.

A consumer is a remote address with the identity that its client sends (`DiscoveryIdentity-*`, else its User-Agent). A
fetch after a change is the acknowledgement that a drain waits for; no fixed delay replaces it, except for the
consumers' own caches.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

DEFAULT_FETCH_INTERVAL = 30.0
"""Seconds between two fetches of a client whose interval is not measured yet: Spring's default."""
MEASURED_GAPS = 5
"""Number of gaps between fetches from which a client's interval is measured."""
MAX_MISSED_FETCHES = 3
"""Number of its own intervals after which a consumer that does not fetch counts as gone."""
MAX_CONSUMERS = 5_000
Name = tuple[str, str]


@dataclass(frozen=True)
class Consumer:
    """A client that fetches the registry. Times in seconds since the epoch.

    `version` is the registry's version that it fetched last.
    """

    address: str
    identity: str
    since: float
    fetched_at: float
    version: int
    gaps: tuple[float, ...] = ()
    """Seconds between the consumer's last fetches."""

    @property
    def name(self) -> Name:
        return self.address, self.identity

    @property
    def interval(self) -> float:
        """The longest of the consumer's last gaps, because clients also fetch out of turn, and at least 1 s.

        Spring's default counts as a gap until there are enough.
        """
        gaps = self.gaps if len(self.gaps) == MEASURED_GAPS else (*self.gaps, DEFAULT_FETCH_INTERVAL)
        return max(1.0, *gaps)

    def is_gone(self, now: float) -> bool:
        return now - self.fetched_at > MAX_MISSED_FETCHES * self.interval


@dataclass
class Removal:
    """A removal that consumers must have fetched.

    `consumers` are those that knew the registry at the removal (time `at`). `fetched_at` is when each has fetched
    since.
    """

    at: float
    consumers: set[Name]
    incomplete: bool = False
    """True if Sluice has started since the removal, so `consumers` may be incomplete."""
    fetched_at: dict[Name, float] = field(default_factory=dict)


@dataclass
class Consumers:
    _known: dict[Name, Consumer] = field(default_factory=dict)
    _removals: dict[str, Removal] = field(default_factory=dict)

    def fetched(self, address: str, identity: str, version: int, now: float) -> Consumer | None:
        """Record that a consumer fetched `version`.

        Return its record from before the fetch, None if it is new.
        """
        name = (address, identity)
        before = self._known.pop(name, None)
        if before is None:
            self._known[name] = Consumer(address, identity, now, now, version)
            while len(self._known) > MAX_CONSUMERS:
                del self._known[next(iter(self._known))]  # the consumer that has been silent longest
        else:
            gaps = (*before.gaps, now - before.fetched_at)[-MEASURED_GAPS:]
            self._known[name] = replace(before, fetched_at=now, version=version, gaps=gaps)
        for removal in self._removals.values():
            removal.fetched_at.setdefault(name, now)
        return before

    def present(self, now: float) -> list[Consumer]:
        """Return the consumers that still fetch, the one with the oldest fetch first."""
        return [consumer for consumer in self._known.values() if not consumer.is_gone(now)]

    def take_gone(self, now: float) -> list[Consumer]:
        """Forget the consumers that no longer fetch and return them."""
        gone = [consumer for consumer in self._known.values() if consumer.is_gone(now)]
        for consumer in gone:
            del self._known[consumer.name]
        return gone

    def died(self, address: str) -> None:
        """Forget the consumers at an address whose container died, because they send no more requests."""
        for name in [name for name in self._known if name[0] == address]:
            del self._known[name]

    def track_removal(self, instance: str, now: float, *, incomplete: bool = False) -> None:
        """Record that consumers can now see that `instance` leaves. A repetition changes nothing.

        `incomplete`: the removal became visible before this start of Sluice, which does not know those consumers. Each of
        them gets the time after which a silent consumer counts as gone.
        """
        self._removals.setdefault(instance, Removal(now, {consumer.name for consumer in self.present(now)}, incomplete))

    def cancel_removal(self, instance: str) -> None:
        """Forget a removal, because the instance stays or has been removed."""
        self._removals.pop(instance, None)

    def stale_consumers(self, instance: str, cache: float, now: float) -> list[Consumer]:
        """Return the consumers that may still send requests to a draining `instance`.

        They have not fetched since its removal, or their own cache (`cache` seconds) may still hold an earlier fetch.
        """
        removal = self._removals.get(instance)
        if removal is None:
            return []
        return [each for each in self._among(removal.consumers, now) if removal.fetched_at.get(each.name, now) + cache > now]

    def drain_not_before(self, instance: str, cache: float, now: float) -> float:
        """Return the time from which no consumer sends requests to a draining `instance`.

        The time is in seconds since the epoch, and infinite until every consumer has fetched.
        """
        removal = self._removals.get(instance)
        if removal is None:
            return 0
        ends = [removal.fetched_at.get(each.name, math.inf) + cache for each in self._among(removal.consumers, now)]
        unknown = [removal.at + MAX_MISSED_FETCHES * DEFAULT_FETCH_INTERVAL + cache] if removal.incomplete else []
        return max([removal.at, *unknown, *ends])

    def _among(self, names: Iterable[Name], now: float) -> list[Consumer]:
        found = (self._known.get(name) for name in sorted(names))
        return [consumer for consumer in found if consumer is not None and not consumer.is_gone(now)]
