"""Leases of registered instances, by Eureka's rules.

There are three deliberate differences from the Java server:
- A lease ends one `duration` after its last renewal. In the Java server it takes two, because of an old bug.
- An override that equals the status already shown is kept. The Java server drops it.
- An instance that was evicted cannot register again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from services.clock import Clock
from services.eureka.applications import Applications, Entry, Key
from services.eureka.instance_info import InvalidRegistration, LeaseStatus, Registration, checked_metadata, metadata_size

MAX_INSTANCES = 10_000
MAX_ALL_METADATA = 32 * 1024**2
"""Characters of the metadata of all instances together: each consumer gets them all with the list."""
TOMBSTONE_SECONDS = 600.0
"""Seconds for which a late registration of an evicted instance is ignored.

That is longer than any client's last messages take.
"""


class LeaseNotFound(Exception):
    """There is no such lease. The client gets a 404 and registers again."""


@dataclass
class Leases:
    """The registry's leases.

    `changed` is called with an instance's key after each change of that instance.
    """

    clock: Clock
    applications: Applications = field(default_factory=Applications)
    changed: Callable[[Key], None] = lambda _: None
    _metadata: int = 0
    _tombstones: dict[Key, float] = field(default_factory=dict)
    _swept_at: float | None = None

    def register(self, registration: Registration, address: str = "") -> bool:
        """Register an instance from the client `address`, or replace its registration.

        Returns False if the instance was evicted; its registration is ignored. Raises InvalidRegistration if the
        registry is full.
        """
        now, key = self.clock.now(), (registration.app, registration.id)
        if self._tombstones.get(key, 0) > now:
            return False
        old = self.applications.get(key)
        if old is None and len(self.applications) >= MAX_INSTANCES:
            raise InvalidRegistration(f"Limit of {MAX_INSTANCES} instances reached")
        self._check_metadata(old, registration.metadata)
        ms = int(now * 1000)
        registration = replace(registration, dirty=registration.dirty or ms)
        if old is not None and _dirty(registration) < _dirty(old.registration):
            registration = old.registration  # the new registration is older and arrived late
        override = old.override if old is not None else LeaseStatus.UNKNOWN
        status = _effective(registration.status, override, old.status if old is not None else None)
        up = old.up_at if old is not None and old.up_at else (ms if status is LeaseStatus.UP else 0)
        self._put(Entry(registration, status, override, registered_at=ms, renewed_at=ms, up_at=up, address=address))
        return True

    def renew(self, key: Key, dirty: int | None = None) -> None:
        """Renew a lease by a heartbeat.

        The status that a heartbeat may carry is ignored, because a client whose status changes registers again.
        Raises LeaseNotFound if the client must register (again).
        """
        entry = self._known(key)
        if entry.status is LeaseStatus.UNKNOWN or (dirty or 0) > _dirty(entry.registration):
            raise LeaseNotFound
        self.applications.touch(replace(entry, renewed_at=int(self.clock.now() * 1000)))

    def cancel(self, key: Key) -> None:
        """End the lease of an instance that leaves. Raises LeaseNotFound."""
        self._known(key)
        self._remove(key)

    def override(self, key: Key, status: LeaseStatus) -> None:
        """Show an instance as `status`, regardless of its own status, until `remove_override`.

        An instance's own DOWN and STARTING take precedence. Raises LeaseNotFound.
        """
        entry = self._known(key)
        if (entry.status, entry.override) != (status, status):
            self._put(replace(entry, status=status, override=status, renewed_at=int(self.clock.now() * 1000)))

    def remove_override(self, key: Key, status: LeaseStatus = LeaseStatus.UNKNOWN) -> None:
        """Remove the override and show `status` from now on. UNKNOWN makes the client register again.

        Raises LeaseNotFound.
        """
        self._put(replace(self._known(key), status=status, override=LeaseStatus.UNKNOWN))

    def add_metadata(self, key: Key, metadata: dict[str, str]) -> None:
        """Merge into the instance's metadata. Raises LeaseNotFound or InvalidRegistration."""
        entry = self._known(key)
        merged = checked_metadata({**entry.registration.metadata, **metadata})
        self._check_metadata(entry, merged)
        self._put(replace(entry, registration=replace(entry.registration, metadata=merged)))

    def evict(self, key: Key) -> None:
        """Evict an instance permanently: its lease ends and a late registration is ignored.

        Netflix's clients report DOWN and cancel their lease concurrently, and the cancellation may arrive first.
        """
        now = self.clock.now()
        self._tombstones = {other: until for other, until in self._tombstones.items() if until > now}
        self._tombstones[key] = now + TOMBSTONE_SECONDS
        if self.applications.get(key) is not None:
            self._remove(key)

    def restore(self, entries: list[Entry]) -> None:
        """Restore the leases of before a restart of Sluice, each with its whole duration from now."""
        now = self.clock.now()
        for entry in entries:
            self._metadata += _metadata_size(entry) - _metadata_size(self.applications.get(entry.key))
            self.applications.put(replace(entry, renewed_at=int(now * 1000)), now)

    def sweep(self) -> list[Key]:
        """Remove the leases that were not renewed for their duration. Return their keys.

        Call about once a second.

        Time without sweeps (a stopped process, a suspended host) does not count against the leases.
        """
        now = self.clock.now()
        missed = max(0.0, now - self._swept_at - MAX_SWEEP_INTERVAL) if self._swept_at is not None else 0.0
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

    def _check_metadata(self, old: Entry | None, metadata: Mapping[str, str]) -> None:
        if self._metadata - _metadata_size(old) + metadata_size(metadata) > MAX_ALL_METADATA:
            raise InvalidRegistration(f"Limit of {MAX_ALL_METADATA} characters of metadata of all instances reached")

    def _put(self, entry: Entry) -> None:
        self._metadata += _metadata_size(entry) - _metadata_size(self.applications.get(entry.key))
        self.applications.put(entry, self.clock.now())
        self.changed(entry.key)

    def _remove(self, key: Key) -> None:
        self._metadata -= _metadata_size(self.applications.get(key))
        self.applications.remove(key, self.clock.now())
        self.changed(key)


MAX_SWEEP_INTERVAL = 10.0
"""Seconds between two sweeps above which Sluice counts as stopped or suspended."""


def _metadata_size(entry: Entry | None) -> int:
    return metadata_size(entry.registration.metadata) if entry is not None else 0


def _dirty(registration: Registration) -> int:
    return registration.dirty or 0


def _effective(own: LeaseStatus, override: LeaseStatus, present: LeaseStatus | None) -> LeaseStatus:
    """Return the status to show, by the rules of the Java server's PeerAwareInstanceRegistryImpl.

    An instance's own DOWN, STARTING or UNKNOWN comes first, then an override, then the status already shown, then the
    instance's own status. So a client that reports UP again does not undo a drain.
    """
    if own not in (LeaseStatus.UP, LeaseStatus.OUT_OF_SERVICE):
        return own
    if override is not LeaseStatus.UNKNOWN:
        return override
    if present in (LeaseStatus.UP, LeaseStatus.OUT_OF_SERVICE):
        return present
    return own
