"""What consumers are shown: the published instances, and what has changed of late.

The list, its hash and the delta come from one state, so none can be newer than another (Netflix/eureka#1120 was that
skew), and each answer is built once per change. A swap of one instance for another leaves the hash as it was (it counts
statuses alone): what tells consumers of it is the delta, which must hold every change that one of them may have missed
(eureka.md §2.6).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from services.eureka.instance_info import Registration, Status

WINDOW = 300.0
"""Seconds that a change stays in the delta: more than the 180 of the Java server. Who was away for longer is made to fetch
all."""
Key = tuple[str, str]


class Action(StrEnum):
    ADDED = "ADDED"
    MODIFIED = "MODIFIED"
    DELETED = "DELETED"


@dataclass(frozen=True)
class Entry:
    """A published instance. Timestamps in milliseconds."""

    registration: Registration
    status: Status
    override: Status = Status.UNKNOWN
    registered_at: int = 0
    renewed_at: int = 0
    up_at: int = 0
    changed_at: int = 0
    action: Action = Action.ADDED
    address: str = ""
    """The client's that registered it."""

    @property
    def key(self) -> Key:
        return self.registration.app, self.registration.id


@dataclass(frozen=True)
class Snapshot:
    """An answer before it is written down: what `versions__delta` and `apps__hashcode` say, and the entries by
    application."""

    version: int
    hashcode: str
    apps: Mapping[str, tuple[Entry, ...]]


@dataclass
class Applications:
    """Entries by application and id. Every change bumps `version`; `cached_response` keeps answers until then."""

    version: int = 1
    _entries: dict[Key, Entry] = field(default_factory=dict)
    _changes: dict[Key, tuple[float, Entry]] = field(default_factory=dict)
    _responses: dict[str, bytes] = field(default_factory=dict)

    def put(self, entry: Entry, now: float) -> Entry:
        """Publish it, as ADDED when it is new and as MODIFIED when a consumer may have it already: eureka-js-client
        ignores ADDED for one that it knows, and keeps the old status (spring-measured.md 12). Returns it as published."""
        known = entry.key in self._entries or entry.key in self._changes
        entry = replace(entry, action=Action.MODIFIED if known else Action.ADDED, changed_at=int(now * 1000))
        self._entries[entry.key] = entry
        self._change(entry, now)
        return entry

    def touch(self, entry: Entry) -> None:
        """Keep what is no news: a renewal's time."""
        self._entries[entry.key] = entry

    def remove(self, key: Key, now: float) -> None:
        """Unpublish it. Its tombstone carries no metadata, which would only make deltas large (spring-measured.md 15)."""
        entry = self._entries.pop(key, None)
        if entry is not None:
            bare = replace(entry.registration, metadata={})
            gone = replace(entry, registration=bare, status=Status.DOWN, action=Action.DELETED, changed_at=int(now * 1000))
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
        """The changes of the last `WINDOW`. For one who may have missed more (`complete` false) the hash is one that no
        consumer can come to, which makes it fetch the full list."""
        self._prune(now)
        hashcode = self.hashcode() if complete else f"{self.hashcode()}FETCH_ALL_1_"
        return Snapshot(self.version, hashcode, _by_app(entry for _, entry in self._changes.values()))

    def hashcode(self) -> str:
        """Netflix's: the number of instances in each status, statuses in alphabetical order."""
        counted = Counter(entry.status for entry in self._entries.values())
        return "".join(f"{status}_{counted[status]}_" for status in sorted(counted))

    def cached_response(self, name: str, build: Callable[[], bytes]) -> bytes:
        """The answer called `name`, built at most once per change."""
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
            if at > now - WINDOW:
                return
            del self._changes[key]
            self._responses.clear()


def _by_app(entries: Iterable[Entry]) -> dict[str, tuple[Entry, ...]]:
    apps: dict[str, list[Entry]] = {}
    for entry in entries:
        apps.setdefault(entry.registration.app, []).append(entry)
    return {app: tuple(found) for app, found in apps.items()}
