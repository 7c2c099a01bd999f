"""How far a deployment has come, whether it can still succeed, and when time alone will change the answer."""

from __future__ import annotations

import math

from services.rollouts.planner.classify import Scene
from services.rollouts.planner.desired import Target
from services.rollouts.planner.observed import ObservedInstance
from services.rollouts.planner.steps import Failed, Progress

CUT_PATIENCE = 20.0
"""Seconds after a cut in which an old worker may still let go by itself; longer than the gateway's keep-alive window."""


def failure_of(target: Target, scene: Scene, now: float) -> Failed | None:
    """Why the deployment cannot succeed, if it cannot. Only instances that it began since it set out count against it."""
    if target.deployment is None:
        return None
    for instance in scene.wanted:
        if instance.deployment != target.deployment or instance.created_at < target.since:
            continue
        if instance.failure:
            return Failed(*instance.failure, instance.id)
        if instance.died or instance.dead:
            return Failed("unhealthy_instance", f"{instance.id} {instance.exit_description or 'exited'}", instance.id)
        if not target.paused and is_overdue(target, instance, now):
            how = "has been unhealthy for" if instance.has_served else "was not healthy within"
            why = f": {instance.last_probe_error}" if instance.last_probe_error else ""
            return Failed("unhealthy_instance", f"{instance.id} {how} {target.start_period:g} s{why}", instance.id)
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
    return max([target.deadline, *(instance.drain_started_at + way_out for instance in scene.leaving)])


def progress_of(target: Target, scene: Scene) -> Progress:
    """What people see of it."""
    return Progress(
        desired=target.replicas,
        ready=sum(
            not instance.dead and (instance.ready_at is not None or instance.id in scene.serving)
            for instance in scene.wanted
        ),
        serving=scene.serving_wanted,
        old_serving=sum(instance.id in scene.serving for instance in scene.unwanted),
        draining=len(scene.leaving),
        failed=sum(instance.dead for instance in scene.wanted),
    )


def _sick_since(instance: ObservedInstance) -> float | None:
    """Since when it runs and ought to be healthy, but is not."""
    if instance.container != "running":
        return None
    if instance.unhealthy_since is not None:
        return instance.unhealthy_since
    return None if instance.admitted or instance.ready_at is not None else instance.started_at


def is_overdue(target: Target, instance: ObservedInstance, now: float) -> bool:
    """It ought to have become healthy by now."""
    since = _sick_since(instance)
    return since is not None and now >= since + target.start_period


def next_moment(target: Target, scene: Scene, now: float) -> float | None:
    """The next moment at which time alone changes the plan."""
    moments = [target.create_after, _deadline(target, scene) or now]
    for instance in scene.leaving:
        moments += [instance.drain_not_before, instance.drain_started_at + target.drain_timeout]
        if instance.force_closed_at is not None:
            moments.append(instance.force_closed_at + CUT_PATIENCE)
    for instance in scene.staying:
        if instance.ready_at is not None and not instance.admitted:
            moments.append(instance.ready_at + target.min_ready)
        sick_since = _sick_since(instance)
        if sick_since is not None:
            moments.append(sick_since + target.start_period)
    return min((moment for moment in moments if now < moment < math.inf), default=None)
