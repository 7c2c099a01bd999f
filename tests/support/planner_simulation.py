"""Small simulation of instances and routers, changed by a plan's steps and by random events.

All invariants are checked at every instant.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Literal

from services.rollouts.planner.classify import counts_against_surge, is_available, matches
from services.rollouts.planner.desired import DesiredState
from services.rollouts.planner.observed import ObservedInstance
from services.rollouts.planner.progress import FORCE_CLOSE_GRACE, LOST_DRAIN_TIMEOUT
from services.rollouts.planner.steps import (
    Admit,
    Create,
    Failed,
    ForceClose,
    MarkDraining,
    Plan,
    Recall,
    Remove,
    Start,
    Step,
    Stop,
    Succeeded,
    Withdraw,
)

ROUTERS = 2
How = Literal["whole", "half", "not"]


@dataclass(frozen=True)
class InstanceBehaviour:
    """Behaviour of a simulated instance, in seconds after its start (`busy`, `listed`: its withdrawal)."""

    refused: bool = False
    ready: float | None = 1
    dies: float | None = None
    returns: bool = False
    """When it dies, the engine starts it again (once it has been admitted)."""
    busy: float = 0
    """Seconds for which it still has requests in flight."""
    listed: float = 0
    """Seconds for which an old worker may still send to it; a force-close does not change that."""


GOOD = InstanceBehaviour()


@dataclass
class SimulatedEndpoint:
    """An instance's endpoint at one router."""

    admitted: bool = False
    busy_until: float = 0
    listed_until: float = 0

    def drained(self, now: float) -> bool:
        return not self.admitted and now >= self.busy_until and now >= self.listed_until


@dataclass
class SimulatedInstance:
    """Actual state of one simulated instance."""

    id: str
    slot: int
    hash: str
    deployment: int
    created_at: float
    routed: bool
    behaviour: InstanceBehaviour
    container: Literal["none", "created", "running", "exited"] = "none"
    started_at: float | None = None
    sick_since: float | None = None
    was_admitted: bool = False
    leaving_at: float | None = None
    stopping: bool = False
    cut_at: float | None = None
    died: bool = False
    lost: str = ""
    failure: tuple[str, str] | None = None
    ready_at: float | None = None
    places: dict[int, SimulatedEndpoint] = field(default_factory=dict)

    def observed(self, now: float) -> ObservedInstance:
        places = list(self.places.values())
        admitted = [place.admitted for place in places]
        everywhere = len(places) == ROUTERS and all(admitted)
        return ObservedInstance(
            id=self.id,
            slot=self.slot,
            hash=self.hash,
            deployment=self.deployment,
            container=self.container,
            routed=self.routed,
            created_at=self.created_at,
            started_at=self.started_at,
            ready_at=self.ready_at,
            admitted=any(admitted) if self.leaving_at is not None else everywhere,
            healthy=self.sick_since is None,
            unhealthy_since=self.sick_since if everywhere or not self.routed else None,
            lost=self.lost if self.container == "running" else "",
            known_to_router=bool(places),
            drained=all(place.drained(now) for place in places),
            in_flight=sum(now < place.busy_until for place in places),
            draining_since=self.leaving_at,
            stopping=self.stopping,
            force_closed_at=self.cut_at,
            died=self.died,
            failure=self.failure,
        )


class SimulatedCluster:
    """Instances, routers and time. `fates` returns the behaviour of the next created instance."""

    def __init__(self, fates: Callable[[], InstanceBehaviour], *, routed: bool = True) -> None:
        self.now = 1000.0
        self.routed = routed
        self.copies: dict[str, SimulatedInstance] = {}
        self._fates = fates
        self._numbers = count(1)
        self._ceiling = 0
        self._mixed = False

    def observed(self) -> list[ObservedInstance]:
        return [copy.observed(self.now) for copy in self.copies.values()]

    # Events

    def wait(self, seconds: float, target: DesiredState) -> None:
        """Let time pass; each event in that time happens at its own time."""
        until = self.now + seconds
        while (at := self.next_event()) is not None and at <= until:
            self.now = max(self.now, at)
            self._happen()
            self.check(target)
        self.now = until
        self._happen()
        self.check(target)

    def next_event(self) -> float | None:
        """Return the time of the next event that happens by itself."""
        moments = []
        for copy in self.copies.values():
            if copy.container == "running" and copy.started_at is not None:
                if copy.ready_at is None and copy.behaviour.ready is not None and copy.sick_since is None:
                    moments.append(copy.started_at + copy.behaviour.ready)
                if copy.behaviour.dies is not None:
                    moments.append(copy.started_at + copy.behaviour.dies)
            moments += [place.busy_until for place in copy.places.values()]
            moments += [place.listed_until for place in copy.places.values()]
        return min((moment for moment in moments if moment > self.now), default=None)

    def die(self, copy: SimulatedInstance, *, returns: bool = False, vanishes: bool = False) -> None:
        """End its process; the routers learn of it immediately.

        With `returns` the engine starts it again, with `vanishes` the container is removed.
        """
        if copy.container != "running":
            return
        copy.died, copy.ready_at, copy.sick_since = True, None, None
        for place in copy.places.values():
            place.admitted, place.busy_until = False, 0
        if returns and copy.was_admitted and not copy.stopping:
            copy.started_at = self.now
        else:
            copy.container = "none" if vanishes else "exited"

    def make_unhealthy(self, copy: SimulatedInstance) -> None:
        if copy.container == "running" and copy.ready_at is not None and copy.sick_since is None:
            copy.sick_since = self.now
            if not copy.observed(self.now).admitted and copy.routed:
                copy.ready_at = None

    def heal(self, copy: SimulatedInstance) -> None:
        copy.sick_since = None

    def disconnect(self, copy: SimulatedInstance) -> None:
        """Take its address away; the routers learn of it immediately."""
        if copy.container == "running":
            copy.lost = "lost its address"
            for place in copy.places.values():
                place.admitted = False

    def reload(self, seconds: float) -> None:
        """Let the gateway's old worker list everything that it knew, for this many seconds."""
        for copy in self.copies.values():
            for place in copy.places.values():
                place.listed_until = max(place.listed_until, self.now + seconds)

    def _happen(self) -> None:
        for copy in self.copies.values():
            if copy.container != "running" or copy.started_at is None:
                continue
            behaviour = copy.behaviour
            if copy.ready_at is None and copy.sick_since is None and behaviour.ready is not None:
                ready_at = copy.started_at + behaviour.ready
                copy.ready_at = ready_at if self.now >= ready_at else None
            if behaviour.dies is not None and self.now >= copy.started_at + behaviour.dies:
                copy.behaviour = replace(behaviour, dies=None)
                self.die(copy, returns=behaviour.returns)

    # Steps

    def take(self, step: Step, target: DesiredState, how: How = "whole") -> None:
        """Run one step: whole, its first half, or not at all."""
        if how == "not":
            return
        half = how == "half"
        if isinstance(step, Create):
            self._create(step, target, half)
            return
        copy = self.copies.get(step.instance)
        if copy is None:
            return
        match step:
            case Start():
                self._start(copy, half)
            case Admit():
                self._admit(copy, half)
            case Recall():
                copy.leaving_at = None
                self._admit(copy, half)
            case MarkDraining():
                copy.leaving_at = self.now
                self._withdraw(copy, half)
            case Withdraw():
                self._withdraw(copy, half)
            case ForceClose():
                self._cut(copy, half)
            case Stop():
                self._stop(copy, half)
            case Remove():
                copy.places.clear()
                if not half:
                    assert copy.container != "running", f"{copy.id} is removed while it runs"
                    del self.copies[copy.id]
        self.check(target)

    def _create(self, step: Create, target: DesiredState, half: bool) -> None:
        number = next(self._numbers)
        deployment = target.deployment or 0
        behaviour = self._fates()
        copy = SimulatedInstance(
            f"{target.hash}-{number}", step.slot, target.hash, deployment, self.now, self.routed, behaviour
        )
        self.copies[copy.id] = copy
        self.check(target)
        if not half:
            self._start(copy, False)
            self.check(target)

    def _start(self, copy: SimulatedInstance, half: bool) -> None:
        if half:
            copy.container = "created"
        elif copy.behaviour.refused:
            copy.container, copy.failure = "none", ("no_capacity", "no memory")
        else:
            copy.container, copy.started_at = "running", self.now

    def _admit(self, copy: SimulatedInstance, half: bool) -> None:
        if copy.container != "running" or copy.ready_at is None:
            return
        for router in range(ROUTERS - half):
            copy.places.setdefault(router, SimulatedEndpoint()).admitted = True
        copy.was_admitted = True

    def _withdraw(self, copy: SimulatedInstance, half: bool) -> None:
        for router, place in copy.places.items():
            if place.admitted and not (half and router == 0):
                place.admitted = False
                place.busy_until = self.now + copy.behaviour.busy
                place.listed_until = max(place.listed_until, self.now + copy.behaviour.listed)

    def _cut(self, copy: SimulatedInstance, half: bool) -> None:
        for router, place in copy.places.items():
            if not (half and router == 0):
                place.busy_until = 0
        if not half:
            copy.cut_at = self.now

    def _stop(self, copy: SimulatedInstance, half: bool) -> None:
        copy.stopping = True
        if not half:
            observed = copy.observed(self.now)
            cut = observed.is_force_closed and self.now >= (copy.cut_at or 0) + FORCE_CLOSE_GRACE
            assert observed.drained or cut, f"{copy.id} is stopped with {observed.in_flight} in flight"
            copy.container, copy.ready_at, copy.sick_since = "exited", None, None

    # Invariants

    def head_for(self, target: DesiredState) -> None:
        """Change the desired state: instances beyond its limit may remain, but may not grow in number."""
        alive = sum(map(counts_against_surge, self.observed()))
        self._ceiling = max(alive, target.replicas + target.surge)
        self._mixed = self._is_mixed()

    def check(self, target: DesiredState) -> None:
        alive = sum(map(counts_against_surge, self.observed()))
        assert alive <= self._ceiling, f"{alive} alive, {self._ceiling} allowed"
        self._ceiling = max(target.replicas + target.surge, alive)
        mixed = self._is_mixed()
        mixes = mixed and not self._mixed
        assert not (target.strategy == "recreate" and mixes), "two versions at once although it recreates"
        self._mixed = mixed

    def _is_mixed(self) -> bool:
        return len({copy.hash for copy in self.copies.values() if copy.container == "running"}) > 1


def check_plan(target: DesiredState, world: Sequence[ObservedInstance], now: float, made: Plan) -> None:
    """Assert that the plan's steps are allowed in the observed state that it was made for."""
    by_id = {observed.id: observed for observed in world}
    named = [step.instance for step in made.steps if not isinstance(step, Create)]
    assert len(set(named)) == len(named), f"two steps for one instance: {made.steps}"
    for step in made.steps:
        if isinstance(step, Create):
            continue
        observed = by_id[step.instance]
        leaves = isinstance(step, Recall | Withdraw | ForceClose | Stop | Remove)
        suspended = isinstance(step, Withdraw) and observed.admitted and observed.ready_at is None
        assert (observed.draining_since is not None) == leaves or suspended, f"{step} of {observed}"
        if isinstance(step, Stop):
            cut = observed.is_force_closed and now >= (observed.force_closed_at or 0) + FORCE_CLOSE_GRACE
            assert (observed.drained or cut) and not observed.admitted, f"{step} of {observed}"
        if isinstance(step, Admit):
            assert observed.ready_at is not None and now >= observed.ready_at + target.min_ready, f"{step} of {observed}"
        if isinstance(step, ForceClose):
            due = LOST_DRAIN_TIMEOUT if observed.lost else target.drain_timeout
            assert now >= (observed.draining_since or 0) + due, f"{step} before drain_timeout"
        if isinstance(step, Remove):
            assert observed.container != "running", f"{step} of {observed}"
    _check_floor(target, world, now, made)
    _check_room(target, world, made)
    assert made.requeue_at is None or made.requeue_at > now, "it wakes at once, again and again"
    assert not (isinstance(made.outcome, Succeeded) and made.steps), "done, and yet there is something to do"
    assert target.deployment is not None or not isinstance(made.outcome, Failed), "nothing runs that could fail"


def _check_floor(target: DesiredState, world: Sequence[ObservedInstance], now: float, made: Plan) -> None:
    """Assert that a plan by itself never brings available instances below replicas − unavailable.

    It also must not drain all unhealthy ones at the same time. While nothing serves, it drains one at most, and only if no
    instance may be created beside it.
    """
    serving = {observed.id for observed in world if is_available(target, observed, now)}
    gone = {step.instance for step in made.steps if isinstance(step, MarkDraining)}
    floor = target.replicas - target.unavailable
    assert not serving & gone or len(serving - gone) >= floor, f"{len(serving - gone)} would serve, {floor} must"
    staying = [
        observed for observed in world if observed.draining_since is None and matches(target, observed) and not observed.dead
    ]
    sick = [observed for observed in staying if observed.has_served and observed.id not in serving]
    if len(staying) <= target.replicas and target.rolled_back_deployment is None:
        gone_sick = sum(observed.id in gone and not observed.lost for observed in sick)
        in_place = target.surge == 0 and gone_sick == 1
        assert not gone_sick or serving or in_place, "the sick ones are taken although nothing is healthy"
        assert gone_sick <= max(target.unavailable, 1), f"{gone_sick} sick ones at once"


def _check_room(target: DesiredState, world: Sequence[ObservedInstance], made: Plan) -> None:
    """Assert that created instances fit the surge while all others still exist.

    With `recreate`, none is created or started before all others have gone.
    """
    created = sum(isinstance(step, Create) for step in made.steps)
    alive = sum(map(counts_against_surge, world))
    assert not created or alive + created <= target.replicas + target.surge, f"{alive} alive and {created} more"
    if target.strategy == "recreate" and any(isinstance(step, Create | Start) for step in made.steps):
        others = [observed for observed in world if counts_against_surge(observed) and not matches(target, observed)]
        assert not others, f"recreate, and {others[0].id} is still there"


def in_order(steps: Iterable[Step], key: int) -> list[Step]:
    """Return parallel steps in one of the orders in which they may end, chosen by `key`."""
    rest, ordered = list(steps), []
    while rest:
        key, index = divmod(key, len(rest)) if len(rest) > 1 else (key, 0)
        ordered.append(rest.pop(index))
    return ordered
