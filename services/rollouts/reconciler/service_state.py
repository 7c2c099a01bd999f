"""In-memory state of one service between two reconciles; safe to lose, or read from the events again."""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from services.backoff import Backoff
from services.rollouts.reconciler.result import ReconcileResult
from services.rollouts.reconciler.router_errors import RouterErrors
from services.routing.port import RoutedService

RESYNC_PERIOD = 30.0
"""Seconds after which a service is reconciled without a notification."""
DRAIN_POLL_MIN, DRAIN_POLL_MAX, DRAIN_POLL_GROWTH = 0.03, 0.25, 1.3
"""Seconds between two observations of a draining instance, because in-flight counts must be polled."""
BACKOFF_MIN, BACKOFF_MAX = 0.2, 5.0
CRASH_WINDOW = 600.0
"""Seconds for which a crash counts towards the delay before the next replacement."""
CRASH_LOOP_THRESHOLD = 3
REPLACEMENT_BACKOFF = Backoff(1.0, 60.0)


@dataclass
class ServiceState:
    """The controller's in-memory state of one service."""

    wake: asyncio.Event = field(default_factory=asyncio.Event)
    worker: asyncio.Task[None] | None = None
    operations: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    """The operations in progress by key. Only the service's worker starts operations."""
    published: RoutedService | None = None
    """The settings of the service that the routers have confirmed."""
    log_tails: dict[str, str | None] = field(default_factory=dict)
    """Instance id → the end of the instance's log, read before the failure of the deployment is recorded."""
    router_errors: RouterErrors = field(default_factory=RouterErrors)
    reconcile_backoff: Backoff = field(default_factory=lambda: Backoff(BACKOFF_MIN, BACKOFF_MAX))
    """Delays before a failed reconcile is tried again."""
    drain_poll: Backoff = field(default_factory=lambda: Backoff(DRAIN_POLL_MIN, DRAIN_POLL_MAX, DRAIN_POLL_GROWTH))
    _operation_backoffs: dict[str, Backoff] = field(default_factory=dict)
    """Operation key → delays before the operation is tried again, since it last succeeded or was not needed."""
    _crashes: defaultdict[int, deque[float]] = field(default_factory=lambda: defaultdict(lambda: deque(maxlen=10)))
    """Slot → times of the last crashes.

    Crashes are counted per slot, because one crash of every instance, as when the machine restarts, is no crash loop.
    """

    @property
    def is_idle(self) -> bool:
        """Whether no operation is in progress, no notification is pending, and the service is not published."""
        return not self.operations and not self.wake.is_set() and self.published is None

    def operation_succeeded(self, key: str, *, routed: bool) -> None:
        """Forget the errors of the operation, or all errors of the routers if they did the operation."""
        if routed:
            self.router_errors.clear_all()
        else:
            self.router_errors.clear(key)
        self._operation_backoffs.pop(key, None)

    def operation_failed(self, key: str) -> float:
        """Return the seconds after which the failed operation may be tried again."""
        return self._operation_backoffs.setdefault(key, Backoff(BACKOFF_MIN, BACKOFF_MAX)).next()

    def retain(self, instances: Collection[str], planned: Collection[str]) -> None:
        """Forget log tails and router errors of other instances, and delays of unneeded operations.

        `planned` are the keys of the operations that are about to start.
        """
        self.log_tails = {id: tail for id, tail in self.log_tails.items() if id in instances}
        self.router_errors.retain(instances)
        needed = {*planned, *self.operations}
        self._operation_backoffs = {key: delays for key, delays in self._operation_backoffs.items() if key in needed}

    def record_crashes(self, slots: Iterable[int], now: float) -> None:
        for slot in slots:
            self._crashes[slot].append(now)

    def is_crash_looping(self, now: float) -> bool:
        return len(self._recent_crashes(now)) >= CRASH_LOOP_THRESHOLD

    def backoff_until(self, now: float) -> float:
        """Return the time before which no replacement is created, in seconds since the epoch.

        The first crash has no delay. The next ones have a delay of 1, 2, 4 … 60 seconds.
        """
        recent = self._recent_crashes(now)
        return recent[-1] + REPLACEMENT_BACKOFF.delay(len(recent) - 2) if len(recent) >= 2 else 0.0

    def requeue_after(self, result: ReconcileResult) -> float:
        """Return the seconds from a successful reconcile to the next one if no notification comes before."""
        self.reconcile_backoff.reset()
        if result.status.draining:
            delay = self.drain_poll.next()
        else:
            self.drain_poll.reset()
            delay = RESYNC_PERIOD
        return delay if result.requeue_after is None else min(delay, result.requeue_after)

    def _recent_crashes(self, now: float) -> list[float]:
        """Return the recent crash times of the slot with the most crashes."""
        recent = ([at for at in crashes if at > now - CRASH_WINDOW] for crashes in self._crashes.values())
        return max(recent, key=len, default=[])
