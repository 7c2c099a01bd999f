"""Live counts of requests by the version that answered, for display while a load runs."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from services.loadtest.request_log import RequestRecord


@dataclass
class VersionCounts:
    """Results of the requests that one version answered.

    `worst_ms` is the time beyond a request's own time.
    """

    requests: int = 0
    answered: int = 0
    lost: int = 0
    slow: int = 0
    run_twice: int = 0
    worst_ms: float = 0.0


@dataclass
class LiveStats:
    """One row for each version, in the order of their first answers.

    The row "" is for requests without an answer that names a version. An answer is slow if it took more than
    `slow_after` seconds beyond its request's own time.
    """

    slow_after: float = 1.0
    rows: dict[str, VersionCounts] = field(default_factory=dict)
    _versions: dict[str, str] = field(default_factory=dict)
    """POST id → the version that answered it."""

    def add(self, entry: RequestRecord) -> None:
        row = self.rows.setdefault(entry.version, VersionCounts())
        row.requests += 1
        row.answered += not entry.lost
        row.lost += entry.lost
        row.slow += not entry.lost and entry.added > self.slow_after
        row.worst_ms = max(row.worst_ms, round(entry.added * 1000, 1))
        if entry.id:
            self._versions[entry.id] = entry.version

    def ran(self, executions: Counter[str]) -> None:
        """Replace the executions by the application's current counts of all ids, including other clients' ids."""
        for row in self.rows.values():
            row.run_twice = 0
        for id, times in executions.items():
            if times > 1 and id in self._versions:
                self.rows[self._versions[id]].run_twice += 1

    @property
    def whole(self) -> VersionCounts:
        rows = self.rows.values()
        return VersionCounts(
            requests=sum(row.requests for row in rows),
            answered=sum(row.answered for row in rows),
            lost=sum(row.lost for row in rows),
            slow=sum(row.slow for row in rows),
            run_twice=sum(row.run_twice for row in rows),
            worst_ms=max((row.worst_ms for row in rows), default=0.0),
        )
