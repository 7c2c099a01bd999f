"""The trial replacement of an unhealthy instance while no instance of the service serves.

Whether a new instance would be better is not known: the instances may hang, or something that all of them need may be away.
So one new instance is tried at a time.
"""

from __future__ import annotations

from dataclasses import dataclass

from services.rollouts.planner.classify import Classification
from services.rollouts.planner.desired import DesiredState
from services.rollouts.planner.observed import ObservedInstance
from services.rollouts.planner.progress import health_deadline_exceeded
from services.rollouts.planner.steps import Create


@dataclass(frozen=True)
class Trial:
    """The trial that begins now, if one does: an instance created beside the others, or one to restart."""

    created: tuple[Create, ...] = ()
    restarted: tuple[ObservedInstance, ...] = ()
    """The instance to drain and stop, in whose place a new one then starts."""


NONE = Trial()


def plan_trial(desired: DesiredState, classification: Classification, now: float) -> Trial:
    """Return the trial to begin in steady state if every instance has been unhealthy for `start_period`.

    With surge, a new instance starts beside the unhealthy ones. If it serves, the others are replaced as usual; otherwise it
    is removed, and they stay. Without surge, one unhealthy instance is drained first. Failed trials count as crashes, so the
    next trial waits until `backoff_until`.
    """
    unhealthy = [instance for instance in classification.matching if instance.unhealthy_since is not None]
    overdue = [instance for instance in unhealthy if health_deadline_exceeded(desired, instance, now)]
    waits = desired.deployment is not None or now < desired.backoff_until
    if waits or not overdue or not _may_begin(desired, classification):
        return NONE
    longest = min(overdue, key=lambda instance: (instance.unhealthy_since or 0, instance.id))
    if classification.surge_budget > 0:
        return Trial(created=(Create(longest.slot),))
    return Trial(restarted=(longest,)) if desired.surge == 0 else NONE


def _may_begin(desired: DesiredState, classification: Classification) -> bool:
    """Return whether no instance serves, none is missing, and none is starting or leaving."""
    return (
        not classification.serving
        and len(classification.active) == desired.replicas
        and all(instance.unhealthy_since is not None and not instance.failed for instance in classification.active)
        and all(instance.dead for instance in classification.draining)
    )
