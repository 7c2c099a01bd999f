"""How far a deployment has come, whether it can still succeed, and when time alone will change the answer."""

from __future__ import annotations

import math

from services.rollouts.planner.classify import Scene
from services.rollouts.planner.desired import Target
from services.rollouts.planner.observed import Seen
from services.rollouts.planner.steps import Failed, Progress

CUT_PATIENCE = 20.0
"""Seconds after a cut in which an old worker may still let go by itself; longer than the gateway's keep-alive window."""


def failure_of(target: Target, scene: Scene, now: float) -> Failed | None:
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
        if not target.paused and is_overdue(target, seen, now):
            how = "has been unhealthy for" if seen.once_served else "was not healthy within"
            why = f": {seen.complaint}" if seen.complaint else ""
            return Failed("unhealthy_instance", f"{seen.id} {how} {target.start_period:g} s{why}", seen.id)
    serving, deadline = scene.serving_wanted, _deadline(target, scene)
    if deadline is not None and not target.paused and now >= deadline and serving < target.replicas:
        message = f"no progress before the deadline: {serving} of {target.replicas} instances serve"
        return Failed("progress_deadline_exceeded", message)
    return None


def _deadline(target: Target, scene: Scene) -> float | None:
    """None, too, when it has come further since it was set. Who leaves has deadlines of his own, which come first."""
    if target.deadline is None or (target.milestone is not None and progress_of(target, scene).milestone > target.milestone):
        return None
    way_out = target.drain_timeout + CUT_PATIENCE + target.stop_grace
    return max([target.deadline, *(seen.drains_from + way_out for seen in scene.leaving)])


def progress_of(target: Target, scene: Scene) -> Progress:
    """What people see of it."""
    return Progress(
        desired=target.replicas,
        ready=sum(not seen.dead and (seen.ready_at is not None or seen.id in scene.serving) for seen in scene.wanted),
        serving=scene.serving_wanted,
        old_serving=sum(seen.id in scene.serving for seen in scene.unwanted),
        draining=len(scene.leaving),
        failed=sum(seen.dead for seen in scene.wanted),
    )


def _sick_since(seen: Seen) -> float | None:
    """Since when it runs and ought to be healthy, but is not."""
    if seen.container != "running":
        return None
    if seen.unhealthy_since is not None:
        return seen.unhealthy_since
    return None if seen.admitted or seen.ready_at is not None else seen.started_at


def is_overdue(target: Target, seen: Seen, now: float) -> bool:
    """It ought to have become healthy by now."""
    since = _sick_since(seen)
    return since is not None and now >= since + target.start_period


def next_moment(target: Target, scene: Scene, now: float) -> float | None:
    """The next moment at which time alone changes the plan."""
    moments = [target.create_after, _deadline(target, scene) or now]
    for seen in scene.leaving:
        moments += [seen.closes_at, seen.drains_from + target.drain_timeout]
        if seen.cut_at is not None:
            moments.append(seen.cut_at + CUT_PATIENCE)
    for seen in scene.staying:
        if seen.ready_at is not None and not seen.admitted:
            moments.append(seen.ready_at + target.min_ready)
        sick_since = _sick_since(seen)
        if sick_since is not None:
            moments.append(sick_since + target.start_period)
    return min((moment for moment in moments if now < moment < math.inf), default=None)
