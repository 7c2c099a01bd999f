"""The planner: a total function of (target, world, now). No clock, no I/O, no database.

It never asks for more than: alive ≤ replicas + surge, and serving ≥ replicas − unavailable at every instant (design.md §4).
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
    Drain,
    ForceClose,
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
    """The next steps towards `desired` from `observed`, at most one an instance, and a verdict once there is one."""
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
    """One turn of a deployment: what leaves goes on leaving, what is missing comes, what has proved itself serves, and what
    is not needed any more leaves. The same turn keeps a service as it is: there, what is missing is what died."""
    created = _create(desired, classification, now)
    retired = [*_replace_failed(desired, classification, now), *_scale_down(desired, classification, bool(created))]
    going = {instance.id for instance in retired}
    return [
        *_drain_and_remove(desired, classification.draining, now),
        *created,
        *_withdraw_unready(instance for instance in classification.active if instance.id not in going),
        *_admit(desired, [instance for instance in classification.active if instance.id not in going], now),
        *(Drain(id) for id in sorted(going)),
    ]


def _plan_paused(desired: DesiredState, classification: Classification, now: float) -> list[Step]:
    """Paused: what leaves goes on leaving, and what served before may serve again; nothing new comes or goes."""
    before = [instance for instance in classification.active if instance.deployment != desired.deployment]
    return [
        *_drain_and_remove(desired, classification.draining, now),
        *_withdraw_unready(classification.active),
        *_admit(desired, before, now),
    ]


def _drain_and_remove(desired: DesiredState, leaving: Iterable[ObservedInstance], now: float) -> list[Step]:
    """The way out, one step at a time: nothing new, nothing in flight, stop, remove."""
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
    """Of those on their way out, take back as many as are missing: they are warm. The rest waits for the next turn."""
    missing = desired.replicas - sum(not instance.dead for instance in classification.matching)
    slots = {instance.slot for instance in classification.matching if not instance.dead}
    recalled: dict[int, str] = {}
    for instance in sorted(classification.draining, key=lambda instance: (instance.slot, instance.id)):
        warm = instance.container == "running" and instance.known_to_router and instance.ready_at is not None
        # one that a registry calls out of service may say so itself (Spring's health does), until it hears otherwise
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
    """Reserved instances that do not run yet; new ones for the slots that nobody has, as far as the surge allows."""
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
    """What has proved itself for long enough."""
    return [
        Admit(instance.id)
        for instance in candidates
        if not (_is_fully_admitted(instance) or instance.dead)
        and instance.container == "running"
        and instance.ready_at is not None
        and now >= instance.ready_at + desired.min_ready
    ]


def _withdraw_unready(candidates: Iterable[ObservedInstance]) -> list[Step]:
    """What serves and is not ready any more (by the engine's own check, or started again since) gets no new requests until
    it is."""
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
    """Admitted wholly. What serves and is not kept, or is a worker, is admitted (again) to be kept."""
    return (instance.admitted or not instance.routed) and (instance.auto_restart or instance.unhealthy_since is not None)


def _replace_failed(desired: DesiredState, classification: Classification, now: float) -> list[ObservedInstance]:
    """What died, or was not ready in time, makes room; of what has been unhealthy for too long as many at a time as may be
    missed (or one), and none while nothing is healthy."""
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
    """Old and surplus instances: all when the new ones serve; before, those that stand in the way, and between batches as
    many as may be missed."""
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
