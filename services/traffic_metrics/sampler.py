"""Sampler of the gateway's counters: to the store every 10 s, and as totals for Prometheus."""

from __future__ import annotations

from collections import Counter, defaultdict

import anyio
import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlmodel import Session

from services.clock import Clock
from services.routing.port import RoutingError
from services.routing.traffic_counts import CountKey, TrafficCounter
from services.store.database import Store
from services.traffic_metrics.repository import RAW_STEP, displayed_revisions, write_samples

log = structlog.get_logger(__name__)
EXPORT_RETENTION_SECONDS = 3600.0
"""Seconds without requests after which a revision is no longer exported to Prometheus."""


class TrafficSampler:
    """Sampler of one Sluice. `run` never returns; `totals` can be read at any time."""

    def __init__(self, store: Store, clock: Clock, router: TrafficCounter) -> None:
        self._store = store
        self._clock = clock
        self._router = router
        self._unwritten: Counter[CountKey] = Counter()
        self._totals: dict[tuple[str, int], tuple[float, Counter[CountKey]]] = {}

    @property
    def totals(self) -> dict[tuple[str, int], Counter[CountKey]]:
        """Counts by service and revision since this Sluice began to count; the counts are never changed.

        The revision is the service's current one if the instance belongs to it.
        """
        return {key: counts for key, (_, counts) in self._totals.items()}

    async def run(self) -> None:
        """Take a sample immediately, then at every whole ten seconds of the clock."""
        while True:
            await self.sample()
            now = self._clock.now()
            await anyio.sleep(_step_start(now) + RAW_STEP - now)

    async def sample(self) -> None:
        """Take one sample. If the gateway or the store fails, the next sample includes the missed counts."""
        now = self._clock.now()
        try:
            increases = await self._router.take_response_counts()
        except RoutingError as error:
            log.debug("figures_not_read", error=str(error))
            return
        if increases is None:
            return
        self._unwritten.update(increases)
        at = _step_start(now) - RAW_STEP
        try:
            written = await self._store.write(lambda session: _write(session, at, self._unwritten))
        except SQLAlchemyError as error:
            log.warning("figures_not_written", error=str(error))
            return
        self._unwritten = Counter()
        self._count(written, now)

    def _count(self, increases: Counter[CountKey], now: float) -> None:
        grouped: defaultdict[tuple[str, int], Counter[CountKey]] = defaultdict(Counter)
        for key, number in increases.items():
            grouped[key.service, key.revision][key] += number
        for revision, counts in grouped.items():
            _, earlier = self._totals.get(revision, (now, Counter[CountKey]()))
            self._totals[revision] = now, earlier + counts  # not changed in place: a scrape reads it in another thread
        self._totals = {
            key: (at, counts) for key, (at, counts) in self._totals.items() if at > now - EXPORT_RETENTION_SECONDS
        }


def _step_start(now: float) -> int:
    """Return the whole ten seconds to which a sample belongs; a timer may fire a moment too early."""
    return int((now + 1) // RAW_STEP) * RAW_STEP


def _write(session: Session, at: int, increases: Counter[CountKey]) -> Counter[CountKey]:
    """Write the counts, and return them by the revisions that are displayed."""
    displayed: Counter[CountKey] = Counter()
    present = displayed_revisions(session) if increases else {}
    for key, number in increases.items():
        displayed[key._replace(revision=present.get((key.service, key.revision), key.revision))] += number
    write_samples(session, at, displayed)
    return displayed
