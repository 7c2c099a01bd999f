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

FALL_BACK = 30.0
"""Seconds after which a service is looked at though nothing hinted."""
FIRST_LOOK, LONGEST_LOOK = 0.03, 0.25
"""Seconds between two looks at an instance that drains: in-flight counts are not told, they must be asked for."""
FIRST_RETRY, LONGEST_RETRY = 0.2, 5.0
ROUTER_PATIENCE = 30.0
"""Seconds for which a router may fail before the deployment that needs it does."""
DEATHS_WITHIN = 600.0
"""Seconds for which a death counts towards the delay before the next replacement."""
CRASH_LOOPING = 3
FIRST_DELAY, LONGEST_DELAY = 1.0, 60.0
PUBLISH = "publish"
"""The key of the operation that publishes a service, or unpublishes it."""


@dataclass
class Room:
    """One service's corner of the loop."""

    wake: asyncio.Event = field(default_factory=asyncio.Event)
    worker: asyncio.Task[None] | None = None
    busy: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    """Operations under way, by instance (or `publish`, or `begin 17`): one at a time each."""
    done: int = 0
    """How many operations have ended: what was observed before the last of them is stale."""
    ended: dict[str, int] = field(default_factory=dict)
    """By instance: the number of its last operation that ended. What was decided on an older look at it is not done."""
    published: RoutedService | None = None
    """What the routers have confirmed that they know of the service."""
    unhealthy_since: dict[str, float] = field(default_factory=dict)
    last_words: dict[str, str | None] = field(default_factory=dict)
    """The end of the log of those that fail a deployment, read before that is told."""
    _look: float = FIRST_LOOK
    _retry: float = 0.0
    _troubles: dict[str, tuple[float, str]] = field(default_factory=dict)
    """By operation: since when a router has not done it, and why."""
    _deaths: defaultdict[int, deque[float]] = field(default_factory=lambda: defaultdict(lambda: deque(maxlen=10)))
    """By slot: that all die once, as when the machine restarts, is no loop."""

    @property
    def idle(self) -> bool:
        """Nothing is under way and nobody hinted."""
        return not self.busy and not self.wake.is_set() and self.published is None

    def ends(self, key: str) -> None:
        """An operation is over."""
        self.done += 1
        self.ended[key] = self.done
        self.busy.pop(key, None)

    def untouched(self, instance: str, since: int) -> bool:
        """No operation on it is under way, and none has ended since the look numbered `since`."""
        return instance not in self.busy and self.ended.get(instance, 0) <= since

    def judge(
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

    def died(self, slots: Iterable[int], now: float) -> None:
        for slot in slots:
            self._deaths[slot].append(now)

    def crash_looping(self, now: float) -> bool:
        return len(self._recent(now)) >= CRASH_LOOPING

    def create_after(self, now: float) -> float:
        """No replacement before: at once after the first death, then after 1, 2, 4 … 60 seconds."""
        recent = self._recent(now)
        if len(recent) < 2:
            return 0.0
        return recent[-1] + min(FIRST_DELAY * 2.0 ** (len(recent) - 2), LONGEST_DELAY)

    def troubled(self, key: str, now: float, error: RoutingError | None) -> None:
        """Note that a router failed in this operation, or (None) did it or need not do it any more."""
        if error is None:
            self._troubles.pop(key, None)
        else:
            since, _ = self._troubles.get(key, (now, ""))
            self._troubles[key] = (now - ROUTER_PATIENCE if error.lasting else since, str(error))

    def keep_troubles(self, instances: Iterable[str]) -> None:
        """Forget those of instances that have gone."""
        retained = {PUBLISH, *instances}
        self._troubles = {key: trouble for key, trouble in self._troubles.items() if key in retained}

    def unpublished(self, now: float) -> str | None:
        """Return why the routers do not publish the service, when that has been so for long."""
        return self._long_trouble([PUBLISH], now)

    def long_trouble(self, now: float) -> str | None:
        """Return why the routers do not do what was asked of instances, when that has been so for long."""
        return self._long_trouble(self._troubles.keys() - {PUBLISH}, now)

    def unserved_link(self, now: float) -> UnservedLink | None:
        """Return what a link to the service waits for; None for one that is served, and where there is nothing to serve."""
        if self.published is None or self.published.linked:
            return None
        return UnservedLink(self.unpublished(now))

    def pause(self, result: ReconcileResult, now: float) -> float:
        """Seconds until the next look, if nothing hints before."""
        self._retry = 0.0
        if result.draining:
            pause = self._look
            self._look = min(self._look * 1.3, LONGEST_LOOK)
        else:
            pause, self._look = FALL_BACK, FIRST_LOOK
        wake_at = result.plan.wake_at if result.plan else None
        return min(pause, max(wake_at - now, 0.01)) if wake_at is not None else pause

    def retry(self) -> float:
        """Seconds until a failed turn or operation is tried again."""
        self._retry = min(max(self._retry * 2, FIRST_RETRY), LONGEST_RETRY)
        return self._retry

    def _long_trouble(self, keys: Iterable[str], now: float) -> str | None:
        troubles = [self._troubles[key] for key in keys if key in self._troubles]
        return next((why for since, why in sorted(troubles) if now >= since + ROUTER_PATIENCE), None)

    def _recent(self, now: float) -> list[float]:
        """Deaths of the slot that died most often."""
        recent = ([at for at in deaths if at > now - DEATHS_WITHIN] for deaths in self._deaths.values())
        return max(recent, key=len, default=[])
