"""Who fetches the registry, how often, and how old what they hold may be.

A consumer is a remote address with the identity that its client names (`DiscoveryIdentity-*`, else its User-Agent). That
it has fetched since a change is the acknowledgement that a drain waits for: nothing is slept out (design.md §5, for caches).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

INTERVAL = 30.0
"""Seconds between two fetches of a client whose own habit is not known yet: Spring's default."""
HABIT = 5
"""Gaps between fetches that tell a client's habit."""
SILENT_FOR = 3
"""Intervals of its own after which a consumer that does not fetch is gone."""
MAX_CONSUMERS = 5_000
Name = tuple[str, str]


@dataclass(frozen=True)
class Consumer:
    """Times in seconds since the epoch; `version` is what it was given last."""

    address: str
    identity: str
    since: float
    fetched_at: float
    version: int
    gaps: tuple[float, ...] = ()
    """Seconds between its last fetches."""

    @property
    def name(self) -> Name:
        return self.address, self.identity

    @property
    def interval(self) -> float:
        """Its habit: the longest of its last gaps, since clients also fetch out of turn; Spring's until there are enough."""
        known = self.gaps if len(self.gaps) == HABIT else (*self.gaps, INTERVAL)
        return max(1.0, *known)

    def gone(self, now: float) -> bool:
        return now - self.fetched_at > SILENT_FOR * self.interval


@dataclass
class Leaving:
    """A change that consumers must have seen: who knew the registry when it was made, and when each has fetched since."""

    at: float
    waiting: set[Name]
    blind: bool = False
    """Not all who know the registry are known: Sluice has started since."""
    seen: dict[Name, float] = field(default_factory=dict)


@dataclass
class Consumers:
    _known: dict[Name, Consumer] = field(default_factory=dict)
    _leaving: dict[str, Leaving] = field(default_factory=dict)

    def fetched(self, address: str, identity: str, version: int, now: float) -> Consumer | None:
        """It was given `version`. Returns what was known of it before."""
        name = (address, identity)
        before = self._known.pop(name, None)
        if before is None:
            self._known[name] = Consumer(address, identity, now, now, version)
            while len(self._known) > MAX_CONSUMERS:
                del self._known[next(iter(self._known))]  # the one that has been silent longest
        else:
            gaps = (*before.gaps, now - before.fetched_at)[-HABIT:]
            self._known[name] = replace(before, fetched_at=now, version=version, gaps=gaps)
        for leaving in self._leaving.values():
            leaving.seen.setdefault(name, now)
        return before

    def present(self, now: float) -> list[Consumer]:
        """Those that still fetch, the one with the oldest list first."""
        return [consumer for consumer in self._known.values() if not consumer.gone(now)]

    def take_gone(self, now: float) -> list[Consumer]:
        """Forget those that fell silent, and return them."""
        gone = [consumer for consumer in self._known.values() if consumer.gone(now)]
        for consumer in gone:
            del self._known[consumer.name]
        return gone

    def died(self, address: str) -> None:
        """Whoever fetched from there sends to nobody any more."""
        for name in [name for name in self._known if name[0] == address]:
            del self._known[name]

    def track_removal(self, instance: str, now: float, *, blind: bool = False) -> None:
        """Consumers were just told that `instance` leaves. Said again, it changes nothing. `blind`: they were told before
        this start of Sluice, which does not know them; each is given the time after which a silent one is gone."""
        self._leaving.setdefault(instance, Leaving(now, {consumer.name for consumer in self.present(now)}, blind))

    def cancel_removal(self, instance: str) -> None:
        """It does not leave after all, or has left."""
        self._leaving.pop(instance, None)

    def stale_consumers(self, instance: str, cache: float, now: float) -> list[Consumer]:
        """Those that may still send to a leaving `instance`: they have not fetched since, or their own cache (`cache`
        seconds) may hold what they fetched before."""
        leaving = self._leaving.get(instance)
        if leaving is None:
            return []
        return [known for known in self._among(leaving.waiting, now) if leaving.seen.get(known.name, now) + cache > now]

    def drain_not_before(self, instance: str, cache: float, now: float) -> float:
        """Seconds since the epoch from which no consumer sends to a leaving `instance` any more; infinite while that is not
        known, since one has not fetched yet."""
        leaving = self._leaving.get(instance)
        if leaving is None:
            return 0
        ends = [leaving.seen.get(known.name, math.inf) + cache for known in self._among(leaving.waiting, now)]
        unknown = [leaving.at + SILENT_FOR * INTERVAL + cache] if leaving.blind else []
        return max([leaving.at, *unknown, *ends])

    def _among(self, names: Iterable[Name], now: float) -> list[Consumer]:
        found = (self._known.get(name) for name in sorted(names))
        return [consumer for consumer in found if consumer is not None and not consumer.gone(now)]
