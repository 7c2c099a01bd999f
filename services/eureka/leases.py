"""Who is registered, and for how long: Eureka's rules over one Book of what was said.

Differences from the Java server, all on purpose: a lease ends one `duration` after its last renewal (there it is two, by
an old slip); an override that says what is shown already is kept (there it is dropped); an instance that was `buried`
cannot come back.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from services.clock import Clock
from services.eureka.applications import Applications, Entry, Key
from services.eureka.instance_info import InvalidRegistration, Registration, Status, checked_metadata

MAX_INSTANCES = 10_000
TOMBSTONE_SECONDS = 600.0
"""Seconds that a late registration of a removed instance is ignored: more than any client's last words need."""


class LeaseNotFound(Exception):
    """No such lease: the client is told 404 and registers again."""


@dataclass
class Leases:
    """The registry. `changed` is called with the key of every instance that changed, after the change."""

    clock: Clock
    applications: Applications = field(default_factory=Applications)
    changed: Callable[[Key], None] = lambda _: None
    _tombstones: dict[Key, float] = field(default_factory=dict)
    _swept_at: float | None = None

    def register(self, registration: Registration, address: str = "") -> bool:
        """Take a registration from `address`, first or again; False when it is one that was buried, which is ignored. Raises
        Refused."""
        now, key = self.clock.now(), (registration.app, registration.id)
        if self._tombstones.get(key, 0) > now:
            return False
        old = self.applications.get(key)
        if old is None and len(self.applications) >= MAX_INSTANCES:
            raise InvalidRegistration(f"There are {MAX_INSTANCES} instances already")
        ms = int(now * 1000)
        registration = replace(registration, dirty=registration.dirty or ms)
        if old is not None and _dirty(registration) < _dirty(old.registration):
            registration = old.registration  # an older word that arrived late
        override = old.override if old is not None else Status.UNKNOWN
        status = _effective(registration.status, override, old.status if old is not None else None)
        up = old.up_at if old is not None and old.up_at else (ms if status is Status.UP else 0)
        self._put(Entry(registration, status, override, registered_at=ms, renewed_at=ms, up_at=up, address=address))
        return True

    def renew(self, key: Key, dirty: int | None = None) -> None:
        """A heartbeat; the status that it may name is no news (a client whose status changes registers again). Raises
        Unknown when the client must register (again)."""
        entry = self._known(key)
        if entry.status is Status.UNKNOWN or (dirty or 0) > _dirty(entry.registration):
            raise LeaseNotFound
        self.applications.touch(replace(entry, renewed_at=int(self.clock.now() * 1000)))

    def cancel(self, key: Key) -> None:
        """It leaves. Raises LeaseNotFound."""
        self._known(key)
        self._remove(key)

    def override(self, key: Key, status: Status) -> None:
        """It is shown as `status` whatever it says of itself, until that is undone, or unless it says DOWN or STARTING.
        Raises LeaseNotFound."""
        entry = self._known(key)
        if (entry.status, entry.override) != (status, status):
            self._put(replace(entry, status=status, override=status, renewed_at=int(self.clock.now() * 1000)))

    def remove_override(self, key: Key, status: Status = Status.UNKNOWN) -> None:
        """Undo `override`; it is `status` from now on. UNKNOWN makes it register again. Raises LeaseNotFound."""
        self._put(replace(self._known(key), status=status, override=Status.UNKNOWN))

    def add_metadata(self, key: Key, metadata: dict[str, str]) -> None:
        """Merge into its metadata. Raises LeaseNotFound, Refused."""
        entry = self._known(key)
        merged = checked_metadata({**entry.registration.metadata, **metadata})
        self._put(replace(entry, registration=replace(entry.registration, metadata=merged)))

    def evict(self, key: Key) -> None:
        """It is gone for good: out at once, and a late registration of it is ignored (Netflix's clients say DOWN and
        goodbye at the same time, and the goodbye may come first)."""
        now = self.clock.now()
        self._tombstones = {other: until for other, until in self._tombstones.items() if until > now}
        self._tombstones[key] = now + TOMBSTONE_SECONDS
        if self.applications.get(key) is not None:
            self._remove(key)

    def restore(self, entries: list[Entry]) -> None:
        """At start: what was registered when Sluice stopped, each with a whole lease from now."""
        now = self.clock.now()
        for entry in entries:
            self.applications.put(replace(entry, renewed_at=int(now * 1000)), now)

    def sweep(self) -> list[Key]:
        """Remove those that have not renewed for their duration. Time in which nobody swept (a stopped process, a sleeping
        host) does not count against them. Returns those removed. Call it about once a second."""
        now = self.clock.now()
        missed = max(0.0, now - self._swept_at - MOST_BETWEEN_SWEEPS) if self._swept_at is not None else 0.0
        self._swept_at = now
        if missed:
            for entry in list(self.applications.entries()):
                self.applications.touch(replace(entry, renewed_at=entry.renewed_at + int(missed * 1000)))
        late = [
            entry.key for entry in self.applications.entries() if entry.renewed_at / 1000 + entry.registration.duration < now
        ]
        for key in late:
            self._remove(key)
        return late

    def _known(self, key: Key) -> Entry:
        entry = self.applications.get(key)
        if entry is None:
            raise LeaseNotFound
        return entry

    def _put(self, entry: Entry) -> None:
        self.applications.put(entry, self.clock.now())
        self.changed(entry.key)

    def _remove(self, key: Key) -> None:
        self.applications.remove(key, self.clock.now())
        self.changed(key)


MOST_BETWEEN_SWEEPS = 10.0


def _dirty(registration: Registration) -> int:
    return registration.dirty or 0


def _effective(said: Status, override: Status, present: Status | None) -> Status:
    """What is shown (PeerAwareInstanceRegistryImpl's rules, eureka.md §2.6): DOWN, STARTING and UNKNOWN are believed; then
    an override; then what is shown already, so that a client that says UP again does not undo a drain; then what it says."""
    if said not in (Status.UP, Status.OUT_OF_SERVICE):
        return said
    if override is not Status.UNKNOWN:
        return override
    if present in (Status.UP, Status.OUT_OF_SERVICE):
        return present
    return said
