"""The published instances and their recent changes, as consumers fetch them.

The list, its hash and the delta are built from one state, so none can be newer than another (Netflix/eureka#1120 was
such a skew). Each answer is built once per change. The hash counts statuses only, so it stays the same if one
instance replaces another. Consumers learn of such a replacement from the delta alone, which must hold every change
that any of them may have missed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from services.eureka.instance_info import LeaseStatus, Registration

DELTA_WINDOW = 300.0
"""Seconds that a change stays in the delta; the Java server's value is 180.

A consumer that was away for longer must fetch the full list.
"""
Key = tuple[str, str]


class DeltaAction(StrEnum):
    ADDED = "ADDED"
    MODIFIED = "MODIFIED"
    DELETED = "DELETED"


@dataclass(frozen=True)
class Entry:
    """A published instance. Timestamps in milliseconds."""

    registration: Registration
    status: LeaseStatus
    override: LeaseStatus = LeaseStatus.UNKNOWN
    registered_at: int = 0
    renewed_at: int = 0
    up_at: int = 0
    changed_at: int = 0
    action: DeltaAction = DeltaAction.ADDED
    address: str = ""
    """Address of the client that registered the instance."""

    @property
    def key(self) -> Key:
        return self.registration.app, self.registration.id


@dataclass(frozen=True)
class Snapshot:
    """Content of an answer before encoding: its version, its hash, and the entries by application.

    The version and the hash are encoded as `versions__delta` and `apps__hashcode`.
    """

    version: int
    hashcode: str
    apps: Mapping[str, tuple[Entry, ...]]


@dataclass
class Applications:
    """The entries by application and id.

    Every change increments `version` and clears the cached responses.
    """

    version: int = 1
    _entries: dict[Key, Entry] = field(default_factory=dict)
    _changes: dict[Key, tuple[float, Entry]] = field(default_factory=dict)
    _responses: dict[str, bytes] = field(default_factory=dict)

    def put(self, entry: Entry, now: float) -> Entry:
        """Publish an entry and return it as published: ADDED if new, MODIFIED if a consumer may know it.

        eureka-js-client ignores ADDED for an instance that it knows, and keeps the old status.
        """
        may_be_known = entry.key in self._entries or entry.key in self._changes
        entry = replace(
            entry, action=DeltaAction.MODIFIED if may_be_known else DeltaAction.ADDED, changed_at=int(now * 1000)
        )
        self._entries[entry.key] = entry
        self._change(entry, now)
        return entry

    def touch(self, entry: Entry) -> None:
        """Replace an entry without publishing a change: its time of renewal."""
        self._entries[entry.key] = entry

    def remove(self, key: Key, now: float) -> None:
        """Unpublish an entry. Its tombstone carries no metadata, which would only enlarge the deltas."""
        entry = self._entries.pop(key, None)
        if entry is not None:
            bare = replace(entry.registration, metadata={})
            gone = replace(
                entry, registration=bare, status=LeaseStatus.DOWN, action=DeltaAction.DELETED, changed_at=int(now * 1000)
            )
            self._change(gone, now)

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: Key) -> Entry | None:
        return self._entries.get(key)

    def entries(self) -> Iterable[Entry]:
        return self._entries.values()

    def full(self, chosen: Callable[[Entry], bool] = lambda _: True) -> Snapshot:
        return Snapshot(self.version, self.hashcode(), _by_app(entry for entry in self._entries.values() if chosen(entry)))

    def delta(self, now: float, *, complete: bool = True) -> Snapshot:
        """Return the changes of the last `DELTA_WINDOW` seconds.

        If the consumer may have missed more (`complete` is False), the hash is one that no consumer can compute. This
        makes the consumer fetch the full list.
        """
        self._prune(now)
        hashcode = self.hashcode() if complete else f"{self.hashcode()}FETCH_ALL_1_"
        return Snapshot(self.version, hashcode, _by_app(entry for _, entry in self._changes.values()))

    def hashcode(self) -> str:
        """Return Netflix's hash: the number of instances in each status, statuses in alphabetical order."""
        counted = Counter(entry.status for entry in self._entries.values())
        return "".join(f"{status}_{counted[status]}_" for status in sorted(counted))

    def cached_response(self, name: str, build: Callable[[], bytes]) -> bytes:
        """Return the answer called `name`, built at most once per change."""
        if name not in self._responses:
            self._responses[name] = build()
        return self._responses[name]

    def _change(self, entry: Entry, now: float) -> None:
        self._changes.pop(entry.key, None)
        self._changes[entry.key] = (now, entry)
        self.version += 1
        self._responses.clear()

    def _prune(self, now: float) -> None:
        for key, (at, _) in list(self._changes.items()):  # oldest first
            if at > now - DELTA_WINDOW:
                return
            del self._changes[key]
            self._responses.clear()


def _by_app(entries: Iterable[Entry]) -> dict[str, tuple[Entry, ...]]:
    apps: dict[str, list[Entry]] = {}
    for entry in entries:
        apps.setdefault(entry.registration.app, []).append(entry)
    return {app: tuple(entries) for app, entries in apps.items()}
