"""The planner: a total function of (target, world, now). No clock, no I/O, no database.

It never asks for more than: alive ≤ replicas + surge, and serving ≥ replicas − unavailable at every instant (design.md §4).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from services.rollouts.steps import (
    Admit,
    Create,
    Cut,
    Done,
    Failed,
    Plan,
    Progress,
    Recall,
    Remove,
    Retire,
    Start,
    Step,
    Stop,
    Verdict,
    Withdraw,
)
from services.spec import count_of

CUT_PATIENCE = 20.0
"""Seconds after a cut in which an old worker may still let go by itself; longer than the gateway's keep-alive window."""


@dataclass(frozen=True)
class Target:
    """Where a service is to go. Times in seconds."""

    hash: str
    replicas: int
    deployment: int | None = None
    """The running deployment; None in steady state."""
    paused: bool = False
    recreate: bool = False
    max_surge: int | str = "100%"
    max_unavailable: int | str = 0
    min_ready: float = 0
    start_period: float = 60
    drain_timeout: float = 30
    deadline: float | None = None
    only_born_in: int | None = None
    """A restart: only instances of this deployment are what is wanted."""
    surplus_first: int | None = None
    """Going back: instances of this deployment are the first that are too many."""
    create_after: float = 0
    """Steady state: no new instance before (back-off after deaths)."""


@dataclass(frozen=True)
class Seen:
    """One instance as the store, the engine, the routers and the probes show it together."""

    id: str
    slot: int
    hash: str
    deployment: int
    container: Literal["none", "created", "running", "exited"]
    routed: bool = True
    """It has a port. A worker has none: ready counts as serving, and it is not drained."""
    started_at: float | None = None
    ready_at: float | None = None
    """Since when it has been proved ready, in this start; None while it is not."""
    admitted: bool = False
    healthy: bool = True
    unhealthy_since: float | None = None
    seated: bool = False
    """Some router knows it."""
    settled: bool = True
    in_flight: int = 0
    leaving_at: float | None = None
    stopping: bool = False
    cut_at: float | None = None
    died: bool = False
    """It had been started, and that start is over."""
    failure: tuple[str, str] | None = None
    """It cannot be started: reason and the engine's words."""
    died_because: str = ""

    @property
    def dead(self) -> bool:
        return self.failure is not None or self.container == "exited" or (self.died and self.container == "none")

    @property
    def serves(self) -> bool:
        """Counts for availability."""
        if self.dead or self.leaving_at is not None or self.container != "running":
            return False
        return (self.admitted and self.healthy) if self.routed else self.ready_at is not None


def plan(target: Target, world: Sequence[Seen], now: float) -> Plan:
    """The next steps towards `target` from `world`."""
    leaving = [seen for seen in world if seen.leaving_at is not None]
    staying = [seen for seen in world if seen.leaving_at is None]
    wanted, unwanted = _sort_out(target, staying)
    serving = [seen for seen in wanted if seen.serves]
    progress = _progress(target, wanted, unwanted, leaving)
    verdict = _failure(target, wanted, len(serving), now)
    steps = [step for seen in leaving for step in _leave(target, seen, now)]
    if target.paused:
        steps += _admit(target, [seen for seen in staying if seen.deployment != target.deployment], now)
    elif verdict is None:
        steps += _replace_dead(target, staying, now)
        alive_wanted = [seen for seen in wanted if not seen.dead]
        recalled = _recall(target, leaving, alive_wanted)
        steps += recalled
        created = [] if recalled else _create(target, world, alive_wanted, now)
        steps += created
        steps += _admit(target, staying, now)
        if not recalled:
            steps += _retire(target, alive_wanted, unwanted, bool(created), _room(target, world))
        if not steps and len(serving) == target.replicas and len(staying) == len(serving) and not leaving:
            verdict = Done()
    return Plan(tuple(steps), progress, verdict, _wake_at(target, staying, leaving, now))


def is_wanted(target: Target, seen: Seen) -> bool:
    """What runs in it is what is to run."""
    return seen.hash == target.hash and target.only_born_in in (None, seen.deployment)


def _sort_out(target: Target, staying: Iterable[Seen]) -> tuple[list[Seen], list[Seen]]:
    """Wanted, at most `replicas` of them; and the rest, which is old or too many."""
    matching = [seen for seen in staying if is_wanted(target, seen)]
    matching.sort(key=lambda seen: (seen.dead, not seen.serves, seen.deployment == target.surplus_first, seen.slot, seen.id))
    wanted = matching[: target.replicas]
    return wanted, [seen for seen in staying if seen not in wanted]


def _failure(target: Target, wanted: list[Seen], serving: int, now: float) -> Verdict | None:
    """Why the deployment cannot succeed, if it cannot. Only its own instances count against it."""
    if target.deployment is None:
        return None
    for seen in wanted:
        if seen.deployment != target.deployment:
            continue
        if seen.failure:
            return Failed(*seen.failure, seen.id)
        if seen.died or seen.dead:
            return Failed("unhealthy_instance", f"{seen.id} {seen.died_because or 'exited'}", seen.id)
        if not target.paused and _overdue(target, seen, now):
            return Failed("unhealthy_instance", f"{seen.id} was not healthy within {target.start_period:g} s", seen.id)
    if target.deadline is not None and not target.paused and now >= target.deadline and serving < target.replicas:
        message = f"no progress before the deadline: {serving} of {target.replicas} instances serve"
        return Failed("progress_deadline_exceeded", message)
    return None


def _overdue(target: Target, seen: Seen, now: float) -> bool:
    """It runs, but has not proved itself, or serves no longer, for longer than its start_period."""
    if seen.container != "running":
        return False
    if seen.admitted:
        return seen.unhealthy_since is not None and now >= seen.unhealthy_since + target.start_period
    return seen.ready_at is None and seen.started_at is not None and now >= seen.started_at + target.start_period


def _leave(target: Target, seen: Seen, now: float) -> list[Step]:
    """The way out, one step at a time: nothing new, nothing in flight, stop, remove."""
    if seen.container in ("exited", "none"):
        return [Remove(seen.id)]
    if seen.admitted:
        return [Withdraw(seen.id)]
    if seen.settled or (seen.cut_at is not None and now >= seen.cut_at + CUT_PATIENCE):
        return [Stop(seen.id)]
    if seen.cut_at is None and now >= (seen.leaving_at or 0) + target.drain_timeout:
        return [Cut(seen.id)]
    return []


def _replace_dead(target: Target, staying: list[Seen], now: float) -> list[Step]:
    """What died, or has been unhealthy for too long, makes room; of the latter one at a time and never all."""
    steps: list[Step] = [Retire(seen.id) for seen in staying if seen.dead]
    sick = [seen for seen in staying if not seen.dead and _overdue(target, seen, now)]
    healthy = [seen for seen in staying if seen.serves]
    never_served = [seen for seen in sick if not seen.admitted]
    once_served = [seen for seen in sick if seen.admitted]
    steps += [Retire(seen.id) for seen in never_served]
    if once_served and healthy:
        steps.append(Retire(once_served[0].id))
    return steps


def _recall(target: Target, leaving: list[Seen], wanted: list[Seen]) -> list[Step]:
    """Of those on their way out, take back as many as are missing: they are warm."""
    missing = target.replicas - len(wanted)
    able = [
        seen
        for seen in leaving
        if is_wanted(target, seen)
        and seen.container == "running"
        and not (seen.dead or seen.stopping or seen.died)
        and seen.cut_at is None
        and seen.healthy
        and seen.seated
        and seen.deployment != target.surplus_first
    ]
    taken = {seen.slot for seen in wanted}
    able = [seen for seen in able if seen.slot not in taken]
    return [Recall(seen.id) for seen in able[: max(missing, 0)]]


def _alive(world: Iterable[Seen]) -> int:
    """What takes up room: everything that has, or is about to have, a container that is not stopped."""
    return sum(1 for seen in world if not seen.dead and not (seen.leaving_at is not None and seen.container == "none"))


def _room(target: Target, world: Sequence[Seen]) -> int:
    surge = 0 if target.recreate else count_of(target.max_surge, target.replicas, up=True)
    return target.replicas + surge - _alive(world)


def _create(target: Target, world: Sequence[Seen], wanted: list[Seen], now: float) -> list[Step]:
    """New instances for the slots that nobody has, as far as the surge allows; reserved ones that have no container yet."""
    steps: list[Step] = [Start(seen.id) for seen in wanted if seen.container in ("none", "created")]
    missing = target.replicas - len(wanted)
    if missing <= 0 or now < target.create_after:
        return steps
    if target.recreate and any(not (seen.dead or is_wanted(target, seen)) or seen.leaving_at is not None for seen in world):
        return steps
    taken = {seen.slot for seen in wanted}
    free = [slot for slot in range(1, target.replicas + len(taken) + 1) if slot not in taken]
    return [*steps, *(Create(slot) for slot in free[: min(missing, max(_room(target, world), 0))])]


def _admit(target: Target, staying: list[Seen], now: float) -> list[Step]:
    """What has proved itself for long enough."""
    return [
        Admit(seen.id)
        for seen in staying
        if seen.routed
        and not (seen.admitted or seen.dead)
        and seen.container == "running"
        and seen.ready_at is not None
        and now >= seen.ready_at + target.min_ready
    ]


def _retire(target: Target, wanted: list[Seen], unwanted: list[Seen], creating: bool, room: int) -> list[Step]:
    """Old and surplus instances, when the new ones serve or, between batches, as many as may be missed."""
    going = [seen for seen in unwanted if not seen.dead]
    if target.recreate and any(not is_wanted(target, seen) for seen in going):
        return [Retire(seen.id) for seen in going]
    serving = sum(seen.serves for seen in wanted)
    if serving == target.replicas:
        return [Retire(seen.id) for seen in going]
    pending = creating or len(wanted) > serving
    if pending or room > 0:
        return []
    idle = [seen for seen in going if not seen.serves]
    busy = sorted((seen for seen in going if seen.serves), key=lambda seen: -seen.slot)
    spare = serving + len(busy) - (target.replicas - _unavailable(target))
    return [Retire(seen.id) for seen in [*idle, *busy[: max(spare, 0)]]]


def _unavailable(target: Target) -> int:
    """How many of `replicas` may be missed; at least one when nothing may be started first (Kubernetes' rule)."""
    unavailable = count_of(target.max_unavailable, target.replicas, up=False)
    return unavailable or int(count_of(target.max_surge, target.replicas, up=True) == 0)


def _progress(target: Target, wanted: list[Seen], unwanted: list[Seen], leaving: list[Seen]) -> Progress:
    return Progress(
        desired=target.replicas,
        ready=sum(seen.ready_at is not None or seen.serves for seen in wanted),
        serving=sum(seen.serves for seen in wanted),
        old_serving=sum(seen.serves for seen in unwanted),
        draining=len(leaving),
        failed=sum(seen.dead for seen in wanted),
    )


def _wake_at(target: Target, staying: list[Seen], leaving: list[Seen], now: float) -> float | None:
    """The next moment at which time alone changes the plan."""
    moments = [seen.leaving_at + target.drain_timeout for seen in leaving if seen.leaving_at is not None]
    moments += [seen.cut_at + CUT_PATIENCE for seen in leaving if seen.cut_at is not None]
    for seen in staying:
        if seen.ready_at is not None and not seen.admitted:
            moments.append(seen.ready_at + target.min_ready)
        if seen.ready_at is None and seen.started_at is not None and not seen.admitted:
            moments.append(seen.started_at + target.start_period)
        if seen.unhealthy_since is not None:
            moments.append(seen.unhealthy_since + target.start_period)
    if target.deadline is not None:
        moments.append(target.deadline)
    moments.append(target.create_after)
    return min((moment for moment in moments if moment > now), default=None)
