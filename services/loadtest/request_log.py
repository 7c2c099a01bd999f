"""Records of all requests, and their summary for each phase."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Literal

RequestKind = Literal["GET", "POST", "SLOW"]

LATE_SECONDS = 5.0
"""Seconds beyond a request's own time after which it counts as lost, answered or not."""


@dataclass(frozen=True, slots=True)
class RequestRecord:
    """One request.

    `at`: seconds since the load began; `latency`: seconds until the whole answer or the failure.

    `own` is the time that the request takes by itself; anything beyond it was added by others.
    """

    at: float
    phase: str
    kind: RequestKind
    fresh: bool
    own: float
    latency: float
    status: int | None
    answered_by: str
    """The instance that the answer names."""
    id: str
    """Unique id of a POST, otherwise empty."""
    error: str
    version: str = ""
    """The version that the answer names."""

    @property
    def added(self) -> float:
        return max(0.0, self.latency - self.own)

    @property
    def lost(self) -> bool:
        return self.status is None or not 200 <= self.status < 300 or self.added > LATE_SECONDS


@dataclass(frozen=True, slots=True)
class Summary:
    """Metrics of a phase. Latencies are in milliseconds beyond the request's own time."""

    phase: str
    seconds: float
    requests: int
    lost: int
    run_twice: int
    p50_ms: float
    p99_ms: float
    worst_ms: float

    def as_dict(self) -> dict[str, object]:
        return asdict(self)


@dataclass
class RequestLog:
    """The records, and the duration of each phase in seconds."""

    entries: list[RequestRecord] = field(default_factory=list)
    phases: dict[str, float] = field(default_factory=dict)
    executions: Counter[str] = field(default_factory=Counter)
    """POST id → number of its executions, as the application reports it."""
    on_entry: Callable[[RequestRecord], None] | None = None

    def add(self, entry: RequestRecord) -> None:
        self.entries.append(entry)
        if self.on_entry is not None:
            self.on_entry(entry)

    @property
    def failures(self) -> list[RequestRecord]:
        return [entry for entry in self.entries if entry.lost]

    @property
    def twice(self) -> list[str]:
        """Ids of this log's POSTs that ran more than once."""
        return [entry.id for entry in self.entries if entry.id and self.executions[entry.id] > 1]

    @property
    def unrecorded(self) -> list[str]:
        """Ids that were answered with success although no application ran them: a false answer."""
        return [entry.id for entry in self.entries if entry.id and not entry.lost and not self.executions[entry.id]]

    def versions(self, phase: str | None = None) -> Counter[str]:
        """Return the answering instances, each with its number of answers."""
        return Counter(e.answered_by for e in self.entries if e.answered_by and phase in (None, e.phase))

    def summary(self, phase: str | None = None) -> Summary:
        """Return the summary of one phase, or of all."""
        chosen = [e for e in self.entries if phase in (None, e.phase)]
        seconds = sum(self.phases.values()) if phase is None else self.phases.get(phase, 0.0)
        return _summary(phase or "all", seconds, chosen, self.executions)

    def summaries(self) -> list[Summary]:
        return [self.summary(phase) for phase in self.phases]

    def explain(self, most: int = 20) -> str:
        """Return the first failures, one a line, and their most frequent kinds, to explain a loss."""
        lines = [
            f"{e.at:8.3f}s {e.phase}: {e.kind} {'fresh' if e.fresh else 'keep-alive'} "
            f"{e.status or '-'} after {e.latency * 1000:.0f} ms {e.answered_by or e.version} {e.error}"
            for e in self.failures[:most]
        ]
        if len(self.failures) > most:
            lines.append(f"… and {len(self.failures) - most} more. In total:")
            sorts = Counter(
                f"{e.status or '-'} {e.error or 'late' * (e.added > LATE_SECONDS)}".strip() for e in self.failures
            )
            lines += [f"{count} × {sort}" for sort, count in sorts.most_common(5)]
        lines += [f"run twice: {id}" for id in self.twice[:most]]
        return "\n".join(lines)


def percentile(values: Sequence[float], share: float) -> float:
    """Return the nearest-rank percentile of sorted values; 0 if there are none."""
    if not values:
        return 0.0
    return values[min(len(values) - 1, int(share * len(values)))]


def _summary(phase: str, seconds: float, entries: Iterable[RequestRecord], executions: Counter[str]) -> Summary:
    chosen = list(entries)
    added = sorted(entry.added * 1000 for entry in chosen)
    return Summary(
        phase=phase,
        seconds=round(seconds, 2),
        requests=len(chosen),
        lost=sum(entry.lost for entry in chosen),
        run_twice=sum(1 for entry in chosen if entry.id and executions[entry.id] > 1),
        p50_ms=round(percentile(added, 0.50), 1),
        p99_ms=round(percentile(added, 0.99), 1),
        worst_ms=round(added[-1] if added else 0.0, 1),
    )
