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
    stop_grace: float = 30
    deadline: float | None = None
    milestone: int | None = None
    """How far it had come at most (Progress.milestone) when the deadline was set."""
    since: float = 0
    """When the deployment last set out: began, went on, or turned back. What was born before and fails is replaced; it does
    not fail the deployment (again)."""
    only_born_in: int | None = None
    """A restart: only instances of this deployment are what is wanted."""
    surplus_first: int | None = None
    """Going back: instances of this deployment are the first that are too many."""
    create_after: float = 0
    """Steady state: no new instance before (back-off after deaths)."""

    @property
    def surge(self) -> int:
        """How many more than `replicas` there may be."""
        return 0 if self.recreate else count_of(self.max_surge, self.replicas, up=True)

    @property
    def unavailable(self) -> int:
        """How many of `replicas` may be missed; at least one when nothing may be started first (Kubernetes' rule)."""
        if self.recreate:
            return self.replicas
        return count_of(self.max_unavailable, self.replicas, up=False) or int(self.surge == 0)


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
    created_at: float = 0
    started_at: float | None = None
    ready_at: float | None = None
    """Since when it has been proved ready, in this start; None while it is not."""
    admitted: bool = False
    healthy: bool = True
    unhealthy_since: float | None = None
    seated: bool = False
    """Some router knows it."""
    settled: bool = True
    kept: bool = True
    """The engine brings it back when it ends: what comes with being admitted."""
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
        """Requests go to it; a worker is ready."""
        if self.dead or self.leaving_at is not None or self.container != "running" or self.unhealthy_since is not None:
            return False
        return (self.admitted and self.healthy) if self.routed else self.ready_at is not None

    @property
    def cut(self) -> bool:
        """On this way out, not on one that it was recalled from."""
        return self.cut_at is not None and self.leaving_at is not None and self.cut_at >= self.leaving_at

    @property
    def once_served(self) -> bool:
        """In this start."""
        return self.admitted or self.unhealthy_since is not None


@dataclass(frozen=True)
class Scene:
    """The world, sorted by what the target says of it."""

    leaving: list[Seen]
    wanted: list[Seen]
    """What is to run, at most `replicas`; dead ones hold no place that a living one could have."""
    unwanted: list[Seen]
    """Old, or too many."""
    serving: frozenset[str]
    """Ids of all that count for availability now."""
    room: int
    """How many more there may be."""

    @property
    def staying(self) -> list[Seen]:
        return [*self.wanted, *self.unwanted]

    @property
    def serving_wanted(self) -> int:
        return sum(seen.id in self.serving for seen in self.wanted)


def plan(target: Target, world: Sequence[Seen], now: float) -> Plan:
    """The next steps towards `target` from `world`, at most one an instance, and a verdict once there is one."""
    scene = _sort_out(target, world, now)
    verdict: Verdict | None = _failure(target, scene, now)
    steps: list[Step] = []
    if target.paused:
        steps = _hold(target, scene, now)
    elif verdict is None:
        steps = _recall(target, scene, now) or _advance(target, scene, now)
        if not steps and not scene.leaving and len(scene.staying) == scene.serving_wanted == target.replicas:
            verdict = Done()
    return Plan(tuple(steps), _progress(target, scene), verdict, _wake_at(target, scene, now))


def _advance(target: Target, scene: Scene, now: float) -> list[Step]:
    """One turn of a deployment: what leaves goes on leaving, what is missing comes, what has proved itself serves, and what
    is not needed any more leaves. The same turn keeps a service as it is: there, what is missing is what died."""
    created = _create(target, scene, now)
    retired = [*_give_up(target, scene, now), *_retire(target, scene, bool(created))]
    going = {seen.id for seen in retired}
    return [
        *_leave(target, scene.leaving, now),
        *created,
        *_suspend(seen for seen in scene.staying if seen.id not in going),
        *_admit(target, [seen for seen in scene.staying if seen.id not in going], now),
        *(Retire(id) for id in sorted(going)),
    ]


def _hold(target: Target, scene: Scene, now: float) -> list[Step]:
    """Paused: what leaves goes on leaving, and what served before may serve again; nothing new comes or goes."""
    before = [seen for seen in scene.staying if seen.deployment != target.deployment]
    return [*_leave(target, scene.leaving, now), *_suspend(scene.staying), *_admit(target, before, now)]


def is_wanted(target: Target, seen: Seen) -> bool:
    """What runs in it is what is to run."""
    return seen.hash == target.hash and target.only_born_in in (None, seen.deployment)


def _sort_out(target: Target, world: Sequence[Seen], now: float) -> Scene:
    """Going back, what the deployment had begun and does not serve is not wanted, whatever runs in it."""
    serving = frozenset(seen.id for seen in world if counts(target, seen, now))
    staying = [seen for seen in world if seen.leaving_at is None]
    matching = [seen for seen in staying if is_wanted(target, seen) and (seen.id in serving or not _is_undone(target, seen))]
    matching.sort(
        key=lambda seen: (seen.dead, seen.id not in serving, seen.deployment == target.surplus_first, seen.slot, seen.id)
    )
    wanted = matching[: max(target.replicas, 0)]
    chosen = {seen.id for seen in wanted}
    return Scene(
        leaving=[seen for seen in world if seen.leaving_at is not None],
        wanted=wanted,
        unwanted=[seen for seen in staying if seen.id not in chosen],
        serving=serving,
        room=target.replicas + target.surge - sum(takes_room(seen) for seen in world),
    )


def takes_room(seen: Seen) -> bool:
    """It has a container that is not stopped, or is about to: its start may be under way."""
    return not seen.dead


def counts(target: Target, seen: Seen, now: float) -> bool:
    """It serves, and for a worker: has been ready for long enough (what has a port is not admitted before)."""
    return seen.serves and (seen.routed or now >= (seen.ready_at or 0) + target.min_ready)


def _is_undone(target: Target, seen: Seen) -> bool:
    """Begun by the deployment that is being undone."""
    return seen.deployment == target.surplus_first and seen.created_at < target.since


def _failure(target: Target, scene: Scene, now: float) -> Failed | None:
    """Why the deployment cannot succeed, if it cannot. Only instances that it began since it set out count against it."""
    if target.deployment is None:
        return None
    for seen in scene.wanted:
        if seen.deployment != target.deployment or seen.created_at < target.since:
            continue
        if seen.failure:
            return Failed(*seen.failure, seen.id)
        if seen.died or seen.dead:
            return Failed("unhealthy_instance", f"{seen.id} {seen.died_because or 'exited'}", seen.id)
        if not target.paused and _overdue(target, seen, now):
            how = "has been unhealthy for" if seen.once_served else "was not healthy within"
            return Failed("unhealthy_instance", f"{seen.id} {how} {target.start_period:g} s", seen.id)
    serving, deadline = scene.serving_wanted, _deadline(target, scene)
    if deadline is not None and not target.paused and now >= deadline and serving < target.replicas:
        message = f"no progress before the deadline: {serving} of {target.replicas} instances serve"
        return Failed("progress_deadline_exceeded", message)
    return None


def _deadline(target: Target, scene: Scene) -> float | None:
    """None, too, when it has come further since it was set. Who leaves has deadlines of his own, which come first."""
    if target.deadline is None or (target.milestone is not None and _progress(target, scene).milestone > target.milestone):
        return None
    way_out = target.drain_timeout + CUT_PATIENCE + target.stop_grace
    return max([target.deadline, *((seen.leaving_at or 0) + way_out for seen in scene.leaving)])


def _sick_since(seen: Seen) -> float | None:
    """Since when it runs and ought to be healthy, but is not."""
    if seen.container != "running":
        return None
    if seen.unhealthy_since is not None:
        return seen.unhealthy_since
    return None if seen.admitted or seen.ready_at is not None else seen.started_at


def _overdue(target: Target, seen: Seen, now: float) -> bool:
    since = _sick_since(seen)
    return since is not None and now >= since + target.start_period


def _leave(target: Target, leaving: Iterable[Seen], now: float) -> list[Step]:
    """The way out, one step at a time: nothing new, nothing in flight, stop, remove."""
    steps: list[Step] = []
    for seen in leaving:
        if seen.container != "running":
            steps.append(Remove(seen.id))
        elif seen.admitted:
            steps.append(Withdraw(seen.id))
        elif seen.settled or (seen.cut and now >= (seen.cut_at or 0) + CUT_PATIENCE):
            steps.append(Stop(seen.id))
        elif not seen.cut and now >= (seen.leaving_at or 0) + target.drain_timeout:
            steps.append(Cut(seen.id))
    return steps


def _recall(target: Target, scene: Scene, now: float) -> list[Step]:
    """Of those on their way out, take back as many as are missing: they are warm. The rest waits for the next turn."""
    missing = target.replicas - sum(not seen.dead for seen in scene.wanted)
    slots = {seen.slot for seen in scene.wanted if not seen.dead}
    recalled: dict[int, str] = {}
    for seen in sorted(scene.leaving, key=lambda seen: (seen.slot, seen.id)):
        warm = seen.container == "running" and seen.seated and seen.ready_at is not None
        warm = warm and seen.healthy and seen.unhealthy_since is None
        over = seen.dead or seen.died or seen.stopping or seen.cut or seen.deployment == target.surplus_first
        if is_wanted(target, seen) and warm and not over and seen.slot not in slots and len(recalled) < missing:
            recalled.setdefault(seen.slot, seen.id)
    if not recalled:
        return []
    rest = [seen for seen in scene.leaving if seen.id not in recalled.values()]
    return [*(Recall(id) for id in recalled.values()), *_leave(target, rest, now), *_admit(target, scene.wanted, now)]


def _create(target: Target, scene: Scene, now: float) -> list[Step]:
    """Reserved instances that do not run yet; new ones for the slots that nobody has, as far as the surge allows."""
    wanted = [seen for seen in scene.wanted if not seen.dead]
    if target.recreate and any(takes_room(seen) for seen in [*scene.leaving, *_others(target, scene)]):
        return []
    steps: list[Step] = [Start(seen.id) for seen in wanted if seen.container in ("none", "created")]
    if now < target.create_after:
        return steps
    taken = {seen.slot for seen in wanted}
    free = [slot for slot in range(1, target.replicas + len(taken) + 1) if slot not in taken]
    missing = target.replicas - len(wanted)
    return [*steps, *(Create(slot) for slot in free[: max(min(missing, scene.room), 0)])]


def _admit(target: Target, candidates: Iterable[Seen], now: float) -> list[Step]:
    """What has proved itself for long enough."""
    return [
        Admit(seen.id)
        for seen in candidates
        if not (_is_in(seen) or seen.dead)
        and seen.container == "running"
        and seen.ready_at is not None
        and now >= seen.ready_at + target.min_ready
    ]


def _suspend(candidates: Iterable[Seen]) -> list[Step]:
    """What serves and is not ready any more (by the engine's own check, or started again since) gets no new requests until
    it is."""
    return [Withdraw(seen.id) for seen in candidates if _is_suspect(seen)]


def _is_suspect(seen: Seen) -> bool:
    return seen.routed and seen.admitted and seen.ready_at is None and seen.container == "running" and not seen.dead


def _is_in(seen: Seen) -> bool:
    """Admitted wholly. What serves and is not kept, or is a worker, is admitted (again) to be kept."""
    return (seen.admitted or not seen.routed) and (seen.kept or seen.unhealthy_since is not None)


def _give_up(target: Target, scene: Scene, now: float) -> list[Seen]:
    """What died, or was not ready in time, makes room; of what has been unhealthy for too long as many at a time as may be
    missed (or one), and none while nothing is healthy."""
    living = [seen for seen in scene.staying if not seen.dead]
    overdue = [seen for seen in living if _overdue(target, seen, now)]
    sick = [seen for seen in scene.wanted if seen in overdue and seen.once_served]
    being_replaced = target.replicas - scene.serving_wanted - len(sick)
    at_a_time = max(target.unavailable, 1) - being_replaced if scene.serving else 0
    return [
        *(seen for seen in scene.staying if seen.dead),
        *(seen for seen in overdue if not seen.once_served),
        *sick[: max(at_a_time, 0)],
    ]


def _retire(target: Target, scene: Scene, creating: bool) -> list[Seen]:
    """Old and surplus instances: all when the new ones serve; before, those that stand in the way, and between batches as
    many as may be missed."""
    living = [seen for seen in scene.unwanted if not seen.dead]
    others = _others(target, scene)
    if scene.serving_wanted == target.replicas or (target.recreate and others):
        return living
    idle = sorted((seen for seen in living if seen.id not in scene.serving), key=lambda seen: -seen.deployment)
    busy = sorted((seen for seen in living if seen.id in scene.serving), key=lambda seen: -seen.slot)
    wanted = sum(not seen.dead for seen in scene.wanted)
    if creating or wanted > scene.serving_wanted or scene.room > 0:
        undone = [seen for seen in idle if _is_undone(target, seen)]
        in_the_way = max(min(target.replicas - wanted, target.surge) - scene.room, 0)
        return undone or idle[:in_the_way]
    spare = scene.serving_wanted + len(busy) - (target.replicas - target.unavailable)
    return [*idle, *busy[: max(spare, 0)]]


def _others(target: Target, scene: Scene) -> list[Seen]:
    """Living ones in which something else runs than is to run."""
    return [seen for seen in scene.unwanted if not seen.dead and not is_wanted(target, seen)]


def _progress(target: Target, scene: Scene) -> Progress:
    return Progress(
        desired=target.replicas,
        ready=sum(not seen.dead and (seen.ready_at is not None or seen.id in scene.serving) for seen in scene.wanted),
        serving=scene.serving_wanted,
        old_serving=sum(seen.id in scene.serving for seen in scene.unwanted),
        draining=len(scene.leaving),
        failed=sum(seen.dead for seen in scene.wanted),
    )


def _wake_at(target: Target, scene: Scene, now: float) -> float | None:
    """The next moment at which time alone changes the plan."""
    moments = [target.create_after, _deadline(target, scene) or now]
    for seen in scene.leaving:
        moments.append((seen.leaving_at or 0) + target.drain_timeout)
        if seen.cut_at is not None:
            moments.append(seen.cut_at + CUT_PATIENCE)
    for seen in scene.staying:
        if seen.ready_at is not None and not seen.admitted:
            moments.append(seen.ready_at + target.min_ready)
        sick_since = _sick_since(seen)
        if sick_since is not None:
            moments.append(sick_since + target.start_period)
    return min((moment for moment in moments if moment > now), default=None)
