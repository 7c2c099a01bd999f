"""The planner: a total function of (target, world, now). No clock, no I/O, no database.

It never asks for more than: alive ≤ replicas + surge, and serving ≥ replicas − unavailable at every instant (design.md §4).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from services.rollouts.planner.classify import Scene, different, is_undone, is_wanted, sort_out, takes_room
from services.rollouts.planner.desired import Target
from services.rollouts.planner.observed import Seen
from services.rollouts.planner.progress import CUT_PATIENCE, failure_of, is_overdue, next_moment, progress_of
from services.rollouts.planner.steps import (
    Admit,
    Create,
    Cut,
    Done,
    Plan,
    Recall,
    Remove,
    Retire,
    Start,
    Step,
    Stop,
    Verdict,
    Withdraw,
)


def plan(target: Target, world: Sequence[Seen], now: float) -> Plan:
    """The next steps towards `target` from `world`, at most one an instance, and a verdict once there is one."""
    scene = sort_out(target, world, now)
    verdict: Verdict | None = failure_of(target, scene, now)
    steps: list[Step] = []
    if target.paused:
        steps = _hold(target, scene, now)
    elif verdict is None:
        steps = _recall(target, scene, now) or _advance(target, scene, now)
        if not steps and not scene.leaving and len(scene.staying) == scene.serving_wanted == target.replicas:
            verdict = Done()
    return Plan(tuple(steps), progress_of(target, scene), verdict, next_moment(target, scene, now))


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


def _leave(target: Target, leaving: Iterable[Seen], now: float) -> list[Step]:
    """The way out, one step at a time: nothing new, nothing in flight, stop, remove."""
    steps: list[Step] = []
    for seen in leaving:
        if seen.container != "running":
            steps.append(Remove(seen.id))
        elif seen.admitted:
            steps.append(Withdraw(seen.id))
        elif seen.drained or (seen.cut and now >= (seen.cut_at or 0) + CUT_PATIENCE):
            steps.append(Stop(seen.id))
        elif not seen.cut and now >= seen.drains_from + target.drain_timeout:
            steps.append(Cut(seen.id))
    return steps


def _recall(target: Target, scene: Scene, now: float) -> list[Step]:
    """Of those on their way out, take back as many as are missing: they are warm. The rest waits for the next turn."""
    missing = target.replicas - sum(not seen.dead for seen in scene.wanted)
    slots = {seen.slot for seen in scene.wanted if not seen.dead}
    recalled: dict[int, str] = {}
    for seen in sorted(scene.leaving, key=lambda seen: (seen.slot, seen.id)):
        warm = seen.container == "running" and seen.seated and seen.ready_at is not None
        # one that a registry calls out of service may say so itself (Spring's health does), until it hears otherwise
        warm = warm and (seen.healthy or seen.closes_at > 0) and seen.unhealthy_since is None
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
    if target.recreate and any(takes_room(seen) for seen in [*scene.leaving, *different(target, scene)]):
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
    return (seen.admitted or not seen.routed) and (seen.auto_restart or seen.unhealthy_since is not None)


def _give_up(target: Target, scene: Scene, now: float) -> list[Seen]:
    """What died, or was not ready in time, makes room; of what has been unhealthy for too long as many at a time as may be
    missed (or one), and none while nothing is healthy."""
    living = [seen for seen in scene.staying if not seen.dead]
    overdue = [seen for seen in living if is_overdue(target, seen, now)]
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
    others = different(target, scene)
    if scene.serving_wanted == target.replicas or (target.recreate and others):
        return living
    idle = sorted((seen for seen in living if seen.id not in scene.serving), key=lambda seen: -seen.deployment)
    busy = sorted((seen for seen in living if seen.id in scene.serving), key=lambda seen: -seen.slot)
    wanted = sum(not seen.dead for seen in scene.wanted)
    if creating or wanted > scene.serving_wanted or scene.room > 0:
        undone = [seen for seen in idle if is_undone(target, seen)]
        in_the_way = max(min(target.replicas - wanted, target.surge) - scene.room, 0)
        return undone or idle[:in_the_way]
    spare = scene.serving_wanted + len(busy) - (target.replicas - target.unavailable)
    return [*idle, *busy[: max(spare, 0)]]
