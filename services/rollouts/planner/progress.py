"""Progress of a deployment, its failure, and the next moments when time alone changes something."""

from __future__ import annotations

import math
from collections.abc import Sequence

from services.rollouts.planner.classify import Classification
from services.rollouts.planner.desired import DesiredState
from services.rollouts.planner.observed import ObservedInstance
from services.rollouts.planner.steps import Failed, Progress

FORCE_CLOSE_GRACE = 20.0
"""Seconds that an old gateway worker gets after a force-close to release its connections by itself.

Longer than the gateway's keep-alive window.
"""


LOST_DRAIN_TIMEOUT = 10.0
"""Seconds for which an instance that lost its address is drained at most, if it cannot be connected again.

Requests that reached it fail after about 5 s in the gateway, which then sends GETs to another instance.
"""


def force_close_at(desired: DesiredState, instance: ObservedInstance) -> float:
    """Return when the requests in flight at a draining instance are ended, in seconds since the epoch."""
    if instance.lost:
        return instance.drain_started_at + min(LOST_DRAIN_TIMEOUT, desired.drain_timeout)
    return instance.drain_started_at + desired.drain_timeout


def check_failure(desired: DesiredState, classification: Classification, now: float) -> Failed | None:
    """Return why the deployment cannot succeed, or None while it can.

    Of the failed instances, only those count that the deployment has created since `desired.started_at`.
    """
    if desired.deployment is None:
        return None
    for instance in classification.matching:
        if instance.deployment != desired.deployment or instance.created_at < desired.started_at:
            continue
        if instance.failure:
            return Failed(*instance.failure, instance.id)
        if instance.died or instance.dead:
            return Failed("unhealthy_instance", f"{instance.id} {instance.exit_description or 'exited'}", instance.id)
        if instance.lost:
            return Failed("unhealthy_instance", f"{instance.id} {instance.lost}", instance.id)
        if not desired.paused and health_deadline_exceeded(desired, instance, now):
            how = "has been unhealthy for" if instance.has_served else "was not healthy within"
            why = f": {instance.last_probe_error}" if instance.last_probe_error else ""
            return Failed("unhealthy_instance", f"{instance.id} {how} {desired.start_period:g} s{why}", instance.id)
    serving, deadline = classification.matching_serving, _deadline(desired, classification)
    if deadline is not None and not desired.paused and now >= deadline and serving < desired.replicas:
        message = f"no progress before the deadline: {serving} of {desired.replicas} instances serve"
        return Failed("progress_deadline_exceeded", message)
    return None


def _deadline(desired: DesiredState, classification: Classification) -> float | None:
    """Return the progress deadline, or None if there is none.

    There is none, too, if the deployment has progressed since the deadline was set. Draining instances have deadlines of
    their own, so the progress deadline is never earlier than these.
    """
    if desired.deadline is None or (
        desired.milestone is not None and compute_progress(desired, classification).milestone > desired.milestone
    ):
        return None
    longest_drain = desired.drain_timeout + FORCE_CLOSE_GRACE + desired.stop_grace
    return max([desired.deadline, *(instance.drain_started_at + longest_drain for instance in classification.draining)])


def compute_progress(desired: DesiredState, classification: Classification) -> Progress:
    """Return the counts of the deployment that the API shows."""
    return Progress(
        desired=desired.replicas,
        ready=sum(
            not instance.failed and (instance.ready_at is not None or instance.id in classification.serving)
            for instance in classification.matching
        ),
        serving=classification.matching_serving,
        old_serving=sum(instance.id in classification.serving for instance in classification.surplus),
        draining=len(classification.draining),
        failed=sum(instance.failed for instance in classification.matching),
    )


def _unhealthy_since(instance: ObservedInstance) -> float | None:
    """Return since when the running instance should be healthy but is not, or None."""
    if instance.container != "running":
        return None
    if instance.unhealthy_since is not None:
        return instance.unhealthy_since
    return None if instance.admitted or instance.ready_at is not None else instance.started_at


def health_deadline_exceeded(desired: DesiredState, instance: ObservedInstance, now: float) -> bool:
    """Return whether the instance has been unhealthy for at least `start_period` seconds."""
    since = _unhealthy_since(instance)
    return since is not None and now >= since + desired.start_period


def next_arrival(desired: DesiredState, observed: Sequence[ObservedInstance]) -> float:
    """Return when the next instance may begin to serve, in seconds since the epoch.

    The time is 0 if an instance may at any moment: the engine may restart one, and a paused deployment may be resumed. The
    time is infinite if none will.
    """
    if desired.replicas == 0:
        return math.inf
    if desired.paused or any(not instance.dead and instance.draining_since is None for instance in observed):
        return 0
    return desired.backoff_until


def next_deadline(desired: DesiredState, classification: Classification, now: float) -> float | None:
    """Return the next moment when time alone changes the plan, in seconds since the epoch, or None."""
    moments = [desired.backoff_until, _deadline(desired, classification) or now]
    for instance in classification.draining:
        moments += [instance.drain_not_before, force_close_at(desired, instance)]
        if instance.force_closed_at is not None:
            moments.append(instance.force_closed_at + FORCE_CLOSE_GRACE)
    for instance in classification.active:
        if instance.ready_at is not None and not instance.admitted:
            moments.append(instance.ready_at + desired.min_ready)
        unhealthy_since = _unhealthy_since(instance)
        if unhealthy_since is not None:
            moments.append(unhealthy_since + desired.start_period)
    return min((moment for moment in moments if now < moment < math.inf), default=None)
