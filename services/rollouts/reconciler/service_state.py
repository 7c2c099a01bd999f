"""In-memory state of one service between two reconciles; safe to lose, or read from the events again."""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from services.backoff import Backoff
from services.engine.port import ContainerView
from services.rollouts.reconciler.linking import UnservedLink
from services.rollouts.reconciler.result import ReconcileResult
from services.routing.port import EndpointState, RoutedService, RoutingError

RESYNC_PERIOD = 30.0
"""Seconds after which a service is reconciled without a notification."""
DRAIN_POLL_MIN, DRAIN_POLL_MAX = 0.03, 0.25
"""Seconds between two observations of a draining instance, because in-flight counts must be polled."""
BACKOFF_MIN, BACKOFF_MAX = 0.2, 5.0
ROUTER_ERROR_TIMEOUT = 30.0
"""Seconds for which a router may fail before the deployment that needs the router fails."""
CRASH_WINDOW = 600.0
"""Seconds for which a crash counts towards the delay before the next replacement."""
CRASH_LOOP_THRESHOLD = 3
REPLACEMENT_BACKOFF = Backoff(1.0, 60.0)
PUBLISH = "publish"
"""The key of the operation that publishes or unpublishes a service."""


@dataclass
class ServiceState:
    """The controller's in-memory state of one service."""

    wake: asyncio.Event = field(default_factory=asyncio.Event)
    worker: asyncio.Task[None] | None = None
    busy: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    """Operations in progress by key: an instance id, `publish` or `begin 17`; at most one per key."""
    operations_ended: int = 0
    """The number of operations that have ended; an observation from before the last end is stale."""
    ended: dict[str, int] = field(default_factory=dict)
    """Operation key (an instance id, for example) → the number of its last operation that ended.

    An operation that was planned on an older observation is not started.
    """
    published: RoutedService | None = None
    """The settings of the service that the routers have confirmed."""
    unhealthy_since: dict[str, float] = field(default_factory=dict)
    log_tails: dict[str, str | None] = field(default_factory=dict)
    """Instance id → the end of the instance's log, read before the failure of the deployment is recorded."""
    drain_poll: Backoff = field(default_factory=lambda: Backoff(DRAIN_POLL_MIN, DRAIN_POLL_MAX, 1.3))
    backoff: Backoff = field(default_factory=lambda: Backoff(BACKOFF_MIN, BACKOFF_MAX))
    """Delays before a failed reconcile or operation is tried again; a successful reconcile resets them."""
    _router_errors: dict[str, tuple[float, str]] = field(default_factory=dict)
    """Operation key → since when a router has failed the operation, and the error."""
    _crashes: defaultdict[int, deque[float]] = field(default_factory=lambda: defaultdict(lambda: deque(maxlen=10)))
    """Slot → times of the last crashes.

    Crashes are counted per slot, because one crash of every instance, as when the machine restarts, is no crash loop.
    """

    @property
    def idle(self) -> bool:
        """Whether no operation is in progress, no notification is pending, and the service is not published."""
        return not self.busy and not self.wake.is_set() and self.published is None

    def operation_finished(self, key: str) -> None:
        """Record the end of an operation."""
        self.operations_ended += 1
        self.ended[key] = self.operations_ended
        self.busy.pop(key, None)

    def is_current(self, instance: str, since: int) -> bool:
        """Return whether an observation of the instance is up to date.

        No operation on the instance may be in progress, and none may have ended since the observation that was made when
        `operations_ended` was `since`.
        """
        return instance not in self.busy and self.ended.get(instance, 0) <= since

    def update_health(
        self, containers: Sequence[ContainerView], endpoint_states: Sequence[Mapping[str, EndpointState]], now: float
    ) -> None:
        """Update since when each admitted instance is unhealthy.

        The routers' own checks and the container's health check count.
        """
        sick = {
            id
            for seats_of in endpoint_states
            for id, endpoint_state in seats_of.items()
            if endpoint_state.state == "admitted" and not endpoint_state.healthy
        }
        sick |= {
            view.instance
            for view in containers
            if view.auto_restart and view.state == "running" and view.health == "unhealthy"
        }
        self.unhealthy_since = {id: self.unhealthy_since.get(id, now) for id in sick}

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
        if len(recent) < 2:
            return 0.0
        return recent[-1] + REPLACEMENT_BACKOFF.delay(len(recent) - 2)

    def record_router_error(self, key: str, now: float, error: RoutingError | None) -> None:
        """Record that a router failed in an operation.

        An `error` of None says that the operation succeeded, or is not needed any more.
        """
        if error is None:
            self._router_errors.pop(key, None)
        else:
            since, _ = self._router_errors.get(key, (now, ""))
            self._router_errors[key] = (now - ROUTER_ERROR_TIMEOUT if error.lasting else since, str(error))

    def keep_troubles(self, instances: Iterable[str]) -> None:
        """Drop the router errors of all instances but `instances`."""
        retained = {PUBLISH, *instances}
        self._router_errors = {key: trouble for key, trouble in self._router_errors.items() if key in retained}

    def unpublished(self, now: float) -> str | None:
        """Return the router error if the routers have failed to publish the service for too long, or None."""
        return self._long_trouble([PUBLISH], now)

    def persistent_router_error(self, now: float) -> str | None:
        """Return the router error if an instance's operation has failed for too long, or None."""
        return self._long_trouble(self._router_errors.keys() - {PUBLISH}, now)

    def unserved_link(self, now: float) -> UnservedLink | None:
        """Return why a link to the service must wait, or None.

        The result is None if the link is served or if the service is not published.
        """
        if self.published is None or self.published.linked:
            return None
        return UnservedLink(self.unpublished(now))

    def requeue_after(self, result: ReconcileResult, now: float) -> float:
        """Return the seconds until the next reconcile if no notification comes before."""
        self.backoff.reset()
        if result.draining:
            delay = self.drain_poll.next()
        else:
            self.drain_poll.reset()
            delay = RESYNC_PERIOD
        requeue_at = result.plan.requeue_at if result.plan else None
        return min(delay, max(requeue_at - now, 0.01)) if requeue_at is not None else delay

    def _long_trouble(self, keys: Iterable[str], now: float) -> str | None:
        troubles = [self._router_errors[key] for key in keys if key in self._router_errors]
        return next((why for since, why in sorted(troubles) if now >= since + ROUTER_ERROR_TIMEOUT), None)

    def _recent_crashes(self, now: float) -> list[float]:
        """Return the recent crash times of the slot with the most crashes."""
        recent = ([at for at in crashes if at > now - CRASH_WINDOW] for crashes in self._crashes.values())
        return max(recent, key=len, default=[])
