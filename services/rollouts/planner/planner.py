"""The planner: a total function of (desired, observed, now), without a clock, I/O or a database.

The planner never asks for more than this, at every instant: living instances ≤ replicas + surge, and serving instances
≥ replicas − unavailable (docs/why-a-pure-planner.md).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from services.rollouts.planner.classify import (
    Classification,
    belongs_to_rollback,
    classify,
    counts_against_surge,
    matches,
    outdated,
)
from services.rollouts.planner.desired import DesiredState
from services.rollouts.planner.observed import ObservedInstance
from services.rollouts.planner.progress import (
    FORCE_CLOSE_GRACE,
    check_failure,
    compute_progress,
    health_deadline_exceeded,
    next_deadline,
)
from services.rollouts.planner.steps import (
    Admit,
    Create,
    ForceClose,
    MarkDraining,
    Outcome,
    Plan,
    Recall,
    Remove,
    Start,
    Step,
    Stop,
    Succeeded,
    Withdraw,
)


def plan(desired: DesiredState, observed: Sequence[ObservedInstance], now: float) -> Plan:
    """Return the next steps from `observed` towards `desired`, and the outcome if there is one.

    There is at most one step per instance. `now` is in seconds since the epoch.
    """
    classification = classify(desired, observed, now)
    outcome: Outcome | None = check_failure(desired, classification, now)
    steps: list[Step] = []
    if desired.paused:
        steps = _plan_paused(desired, classification, now)
    elif outcome is None:
        steps = _reuse_draining(desired, classification, now) or _roll_forward(desired, classification, now)
        if (
            not steps
            and not classification.draining
            and len(classification.active) == classification.matching_serving == desired.replicas
        ):
            outcome = Succeeded()
    return Plan(
        tuple(steps), compute_progress(desired, classification), outcome, next_deadline(desired, classification, now)
    )


def _roll_forward(desired: DesiredState, classification: Classification, now: float) -> list[Step]:
    """Return the steps of one reconcile towards the desired state.

    Draining continues, missing instances are created, ready instances are admitted, and instances that are not needed any
    more begin to drain. The same steps keep a service in steady state, in which dead instances are the missing ones.
    """
    created = _create(desired, classification, now)
    retired = [*_replace_failed(desired, classification, now), *_scale_down(desired, classification, bool(created))]
    going = {instance.id for instance in retired}
    return [
        *_drain_and_remove(desired, classification.draining, now),
        *created,
        *_withdraw_unready(instance for instance in classification.active if instance.id not in going),
        *_admit(desired, [instance for instance in classification.active if instance.id not in going], now),
        *(MarkDraining(id) for id in sorted(going)),
    ]


def _plan_paused(desired: DesiredState, classification: Classification, now: float) -> list[Step]:
    """Return the steps of a paused deployment.

    Draining continues, and instances of earlier deployments may be admitted again. No instance is created, and no further
    instance begins to drain.
    """
    before = [instance for instance in classification.active if instance.deployment != desired.deployment]
    return [
        *_drain_and_remove(desired, classification.draining, now),
        *_withdraw_unready(classification.active),
        *_admit(desired, before, now),
    ]


def _drain_and_remove(desired: DesiredState, leaving: Iterable[ObservedInstance], now: float) -> list[Step]:
    """Return the next step of each draining instance.

    The order is: withdraw, wait until the instance is drained (or force-close it after `drain_timeout`), stop, remove.
    """
    steps: list[Step] = []
    for instance in leaving:
        if instance.container != "running":
            steps.append(Remove(instance.id))
        elif instance.admitted:
            steps.append(Withdraw(instance.id))
        elif instance.drained or (instance.is_force_closed and now >= (instance.force_closed_at or 0) + FORCE_CLOSE_GRACE):
            steps.append(Stop(instance.id))
        elif not instance.is_force_closed and now >= instance.drain_started_at + desired.drain_timeout:
            steps.append(ForceClose(instance.id))
    return steps


def _reuse_draining(desired: DesiredState, classification: Classification, now: float) -> list[Step]:
    """Return steps that recall as many draining instances as are missing, because these are warm.

    The list is empty if no instance can be recalled. Otherwise creation and scale-down wait for the next reconcile.
    """
    missing = desired.replicas - sum(not instance.dead for instance in classification.matching)
    slots = {instance.slot for instance in classification.matching if not instance.dead}
    recalled: dict[int, str] = {}
    for instance in sorted(classification.draining, key=lambda instance: (instance.slot, instance.id)):
        warm = instance.container == "running" and instance.known_to_router and instance.ready_at is not None
        # an instance that a registry lists as out of service may report itself unhealthy (Spring's health check does),
        # until the registry lists it as up again
        warm = warm and (instance.healthy or instance.drain_not_before > 0) and instance.unhealthy_since is None
        over = (
            instance.dead
            or instance.died
            or instance.stopping
            or instance.is_force_closed
            or instance.deployment == desired.rolled_back_deployment
        )
        if matches(desired, instance) and warm and not over and instance.slot not in slots and len(recalled) < missing:
            recalled.setdefault(instance.slot, instance.id)
    if not recalled:
        return []
    rest = [instance for instance in classification.draining if instance.id not in recalled.values()]
    return [
        *(Recall(id) for id in recalled.values()),
        *_drain_and_remove(desired, rest, now),
        *_admit(desired, classification.matching, now),
    ]


def _create(desired: DesiredState, classification: Classification, now: float) -> list[Step]:
    """Return Start steps for reserved instances that do not run yet, and Create steps for the free slots.

    The surge budget limits the number of Create steps.
    """
    wanted = [instance for instance in classification.matching if not instance.dead]
    if desired.recreate and any(
        counts_against_surge(instance) for instance in [*classification.draining, *outdated(desired, classification)]
    ):
        return []
    steps: list[Step] = [Start(instance.id) for instance in wanted if instance.container in ("none", "created")]
    if now < desired.backoff_until:
        return steps
    taken = {instance.slot for instance in wanted}
    free = [slot for slot in range(1, desired.replicas + len(taken) + 1) if slot not in taken]
    missing = desired.replicas - len(wanted)
    return [*steps, *(Create(slot) for slot in free[: max(min(missing, classification.surge_budget), 0)])]


def _admit(desired: DesiredState, candidates: Iterable[ObservedInstance], now: float) -> list[Step]:
    """Return Admit steps for the candidates that have been ready for `min_ready` seconds."""
    return [
        Admit(instance.id)
        for instance in candidates
        if not (_is_fully_admitted(instance) or instance.dead)
        and instance.container == "running"
        and instance.ready_at is not None
        and now >= instance.ready_at + desired.min_ready
    ]


def _withdraw_unready(candidates: Iterable[ObservedInstance]) -> list[Step]:
    """Return Withdraw steps for the candidates that are admitted but not ready any more.

    Such an instance failed the engine's own health check, or was restarted. The instance gets no new requests until it is
    ready again.
    """
    return [Withdraw(instance.id) for instance in candidates if _is_suspect(instance)]


def _is_suspect(instance: ObservedInstance) -> bool:
    return (
        instance.routed
        and instance.admitted
        and instance.ready_at is None
        and instance.container == "running"
        and not instance.dead
    )


def _is_fully_admitted(instance: ObservedInstance) -> bool:
    """Return whether the instance needs no Admit step.

    A healthy instance without `auto_restart` needs an Admit step even if the routers admit it, or if it is a worker, because
    that step also enables `auto_restart`.
    """
    return (instance.admitted or not instance.routed) and (instance.auto_restart or instance.unhealthy_since is not None)


def _replace_failed(desired: DesiredState, classification: Classification, now: float) -> list[ObservedInstance]:
    """Return the instances to drain because they are dead or have exceeded their health deadline.

    Of the matching instances that have served and have been unhealthy for too long, only as many are replaced at a time as
    may be unavailable (at least one), and none while no instance serves.
    """
    living = [instance for instance in classification.active if not instance.dead]
    overdue = [instance for instance in living if health_deadline_exceeded(desired, instance, now)]
    sick = [instance for instance in classification.matching if instance in overdue and instance.has_served]
    being_replaced = desired.replicas - classification.matching_serving - len(sick)
    at_a_time = max(desired.unavailable, 1) - being_replaced if classification.serving else 0
    return [
        *(instance for instance in classification.active if instance.dead),
        *(instance for instance in overdue if not instance.has_served),
        *sick[: max(at_a_time, 0)],
    ]


def _scale_down(desired: DesiredState, classification: Classification, creating: bool) -> list[ObservedInstance]:
    """Return the surplus instances to drain.

    All go if every desired instance serves, or if `recreate` is set and outdated instances exist. Before that, instances
    that do not serve go if they block the creation of missing instances, and between two batches as many serving instances
    go as may be unavailable.
    """
    living = [instance for instance in classification.surplus if not instance.dead]
    others = outdated(desired, classification)
    if classification.matching_serving == desired.replicas or (desired.recreate and others):
        return living
    idle = sorted(
        (instance for instance in living if instance.id not in classification.serving),
        key=lambda instance: -instance.deployment,
    )
    busy = sorted(
        (instance for instance in living if instance.id in classification.serving), key=lambda instance: -instance.slot
    )
    wanted = sum(not instance.dead for instance in classification.matching)
    if creating or wanted > classification.matching_serving or classification.surge_budget > 0:
        undone = [instance for instance in idle if belongs_to_rollback(desired, instance)]
        in_the_way = max(min(desired.replicas - wanted, desired.surge) - classification.surge_budget, 0)
        return undone or idle[:in_the_way]
    spare = classification.matching_serving + len(busy) - (desired.replicas - desired.unavailable)
    return [*idle, *busy[: max(spare, 0)]]
