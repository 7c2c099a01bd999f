"""What the loop remembers of one service between two turns; all of it can be lost, or is read from the events again."""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from services.engine.port import ContainerView
from services.rollouts.reconciler.linking import UnservedLink
from services.rollouts.reconciler.result import ReconcileResult
from services.routing.port import EndpointState, RoutedService, RoutingError

RESYNC_PERIOD = 30.0
"""Seconds after which a service is looked at though nothing hinted."""
DRAIN_POLL_MIN, DRAIN_POLL_MAX = 0.03, 0.25
"""Seconds between two looks at an instance that drains: in-flight counts are not told, they must be asked for."""
BACKOFF_MIN, BACKOFF_MAX = 0.2, 5.0
ROUTER_ERROR_TIMEOUT = 30.0
"""Seconds for which a router may fail before the deployment that needs it does."""
CRASH_WINDOW = 600.0
"""Seconds for which a death counts towards the delay before the next replacement."""
CRASH_LOOP_THRESHOLD = 3
RESTART_DELAY_MIN, RESTART_DELAY_MAX = 1.0, 60.0
PUBLISH = "publish"
"""The key of the operation that publishes a service, or unpublishes it."""


@dataclass
class ServiceState:
    """One service's corner of the loop."""

    wake: asyncio.Event = field(default_factory=asyncio.Event)
    worker: asyncio.Task[None] | None = None
    busy: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    """Operations under way, by instance (or `publish`, or `begin 17`): one at a time each."""
    operations_ended: int = 0
    """How many operations have ended: what was observed before the last of them is stale."""
    ended: dict[str, int] = field(default_factory=dict)
    """By instance: the number of its last operation that ended. What was decided on an older look at it is not done."""
    published: RoutedService | None = None
    """What the routers have confirmed that they know of the service."""
    unhealthy_since: dict[str, float] = field(default_factory=dict)
    log_tails: dict[str, str | None] = field(default_factory=dict)
    """The end of the log of those that fail a deployment, read before that is told."""
    _drain_poll: float = DRAIN_POLL_MIN
    _backoff: float = 0.0
    _router_errors: dict[str, tuple[float, str]] = field(default_factory=dict)
    """By operation: since when a router has not done it, and why."""
    _crashes: defaultdict[int, deque[float]] = field(default_factory=lambda: defaultdict(lambda: deque(maxlen=10)))
    """By slot: that all die once, as when the machine restarts, is no loop."""

    @property
    def idle(self) -> bool:
        """Nothing is under way and nobody hinted."""
        return not self.busy and not self.wake.is_set() and self.published is None

    def operation_finished(self, key: str) -> None:
        """An operation is over."""
        self.operations_ended += 1
        self.ended[key] = self.operations_ended
        self.busy.pop(key, None)

    def is_current(self, instance: str, since: int) -> bool:
        """No operation on it is under way, and none has ended since the look numbered `since`."""
        return instance not in self.busy and self.ended.get(instance, 0) <= since

    def update_health(
        self, containers: Sequence[ContainerView], endpoint_states: Sequence[Mapping[str, EndpointState]], now: float
    ) -> None:
        """Since when each instance that has been admitted is unhealthy, by the routers' own checks or the container's."""
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
        """No replacement before: at once after the first death, then after 1, 2, 4 … 60 seconds."""
        recent = self._recent_crashes(now)
        if len(recent) < 2:
            return 0.0
        return recent[-1] + min(RESTART_DELAY_MIN * 2.0 ** (len(recent) - 2), RESTART_DELAY_MAX)

    def record_router_error(self, key: str, now: float, error: RoutingError | None) -> None:
        """Note that a router failed in this operation, or (None) did it or need not do it any more."""
        if error is None:
            self._router_errors.pop(key, None)
        else:
            since, _ = self._router_errors.get(key, (now, ""))
            self._router_errors[key] = (now - ROUTER_ERROR_TIMEOUT if error.lasting else since, str(error))

    def keep_troubles(self, instances: Iterable[str]) -> None:
        """Forget those of instances that have gone."""
        retained = {PUBLISH, *instances}
        self._router_errors = {key: trouble for key, trouble in self._router_errors.items() if key in retained}

    def unpublished(self, now: float) -> str | None:
        """Return why the routers do not publish the service, when that has been so for long."""
        return self._long_trouble([PUBLISH], now)

    def persistent_router_error(self, now: float) -> str | None:
        """Return why the routers do not do what was asked of instances, when that has been so for long."""
        return self._long_trouble(self._router_errors.keys() - {PUBLISH}, now)

    def unserved_link(self, now: float) -> UnservedLink | None:
        """Return what a link to the service waits for; None for one that is served, and where there is nothing to serve."""
        if self.published is None or self.published.linked:
            return None
        return UnservedLink(self.unpublished(now))

    def requeue_after(self, result: ReconcileResult, now: float) -> float:
        """Seconds until the next look, if nothing hints before."""
        self._backoff = 0.0
        if result.draining:
            delay = self._drain_poll
            self._drain_poll = min(self._drain_poll * 1.3, DRAIN_POLL_MAX)
        else:
            delay, self._drain_poll = RESYNC_PERIOD, DRAIN_POLL_MIN
        wake_at = result.plan.wake_at if result.plan else None
        return min(delay, max(wake_at - now, 0.01)) if wake_at is not None else delay

    def next_backoff(self) -> float:
        """Seconds until a failed turn or operation is tried again."""
        self._backoff = min(max(self._backoff * 2, BACKOFF_MIN), BACKOFF_MAX)
        return self._backoff

    def _long_trouble(self, keys: Iterable[str], now: float) -> str | None:
        troubles = [self._router_errors[key] for key in keys if key in self._router_errors]
        return next((why for since, why in sorted(troubles) if now >= since + ROUTER_ERROR_TIMEOUT), None)

    def _recent_crashes(self, now: float) -> list[float]:
        """Deaths of the slot that died most often."""
        recent = ([at for at in crashes if at > now - CRASH_WINDOW] for crashes in self._crashes.values())
        return max(recent, key=len, default=[])
