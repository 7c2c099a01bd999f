"""Replacement of instances: which ones are created, and which ones begin to drain."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from services.rollouts.planner.classify import Classification, belongs_to_rollback
from services.rollouts.planner.desired import DesiredState
from services.rollouts.planner.instance_steps import admit_ready, drain_and_remove, withdraw_unready
from services.rollouts.planner.observed import ObservedInstance
from services.rollouts.planner.progress import health_deadline_exceeded
from services.rollouts.planner.steps import Create, MarkDraining, Start, Step
from services.rollouts.planner.trial import plan_trial


def replace_instances(
    desired: DesiredState,
    classification: Classification,
    created: Sequence[Step],
    surplus: Iterable[ObservedInstance],
    now: float,
) -> list[Step]:
    """Return the steps of one reconcile: continue drains, start `created`, admit ready instances.

    The instances in `surplus` and the failed instances begin to drain.
    """
    trial = plan_trial(desired, classification, now)
    failed = _failed_to_drain(desired, classification, now)
    retired = {instance.id for instance in [*failed, *surplus, *trial.restarted]}
    remaining = [instance for instance in classification.active if instance.id not in retired]
    return [
        *drain_and_remove(desired, classification.draining, now),
        *created,
        *trial.created,
        *withdraw_unready(remaining),
        *admit_ready(desired, remaining, now),
        *(MarkDraining(id) for id in sorted(retired)),
    ]


def create_missing(desired: DesiredState, classification: Classification, now: float) -> list[Step]:
    """Return Start steps for reserved instances that do not run yet, and Create steps for the free slots.

    The surge budget limits the number of Create steps.
    """
    living = classification.living_matching
    steps: list[Step] = [Start(instance.id) for instance in living if instance.container in ("none", "created")]
    if now < desired.backoff_until:
        return steps
    taken = {instance.slot for instance in living}
    free = [slot for slot in range(1, desired.replicas + len(taken) + 1) if slot not in taken]
    missing = desired.replicas - len(living)
    return [*steps, *(Create(slot) for slot in free[: max(min(missing, classification.surge_budget), 0)])]


def surplus_to_drain(desired: DesiredState, classification: Classification, *, creating: bool) -> list[ObservedInstance]:
    """Return the surplus instances to drain within `surge` and `unavailable`.

    All go if every desired instance serves. Before that, instances that do not serve go if they block the creation of
    missing instances, and between two batches as many serving instances go as may be unavailable.
    """
    if classification.matching_serving == desired.replicas:
        return classification.living_surplus
    idle = sorted(
        (instance for instance in classification.living_surplus if instance.id not in classification.serving),
        key=lambda instance: -instance.deployment,
    )
    living = len(classification.living_matching)
    if creating or living > classification.matching_serving or classification.surge_budget > 0:
        rolled_back = [instance for instance in idle if belongs_to_rollback(desired, instance)]
        blocking = max(min(desired.replicas - living, desired.surge) - classification.surge_budget, 0)
        return rolled_back or idle[:blocking]
    busy = sorted(
        (instance for instance in classification.living_surplus if instance.id in classification.serving),
        key=lambda instance: -instance.slot,
    )
    spare = classification.matching_serving + len(busy) - (desired.replicas - desired.unavailable)
    return [*idle, *busy[: max(spare, 0)]]


def _failed_to_drain(desired: DesiredState, classification: Classification, now: float) -> list[ObservedInstance]:
    """Return the instances to drain because they have failed or have exceeded their health deadline.

    Of the matching instances that have served and have been unhealthy for too long, only as many are replaced at a time as
    may be unavailable (at least one), and none while no instance serves (`plan_trial` decides about these).
    """
    failed = [instance for instance in classification.active if instance.failed]
    overdue = [
        instance
        for instance in classification.active
        if not instance.failed and health_deadline_exceeded(desired, instance, now)
    ]
    never_served = [instance for instance in overdue if not instance.has_served]
    unhealthy = [instance for instance in classification.matching if instance in overdue and instance.has_served]
    being_replaced = desired.replicas - classification.matching_serving - len(unhealthy)
    batch = max(desired.unavailable, 1) - being_replaced if classification.serving else 0
    return [*failed, *never_served, *unhealthy[: max(batch, 0)]]
