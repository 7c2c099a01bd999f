"""Steps of single instances, equal for all strategies: drain, remove, admit, withdraw and recall."""

from __future__ import annotations

from collections.abc import Iterable

from services.rollouts.planner.classify import Classification, matches
from services.rollouts.planner.desired import DesiredState
from services.rollouts.planner.observed import ObservedInstance
from services.rollouts.planner.progress import FORCE_CLOSE_GRACE, force_close_at
from services.rollouts.planner.steps import Admit, ForceClose, Recall, Remove, Step, Stop, Withdraw


def drain_and_remove(desired: DesiredState, draining: Iterable[ObservedInstance], now: float) -> list[Step]:
    """Return the next step of each draining instance.

    The order is: withdraw, wait until the instance is drained (or force-close it after `drain_timeout`), stop, remove.
    """
    steps: list[Step] = []
    for instance in draining:
        if instance.container != "running":
            steps.append(Remove(instance.id))
        elif instance.admitted:
            steps.append(Withdraw(instance.id))
        elif instance.drained or (instance.is_force_closed and now >= (instance.force_closed_at or 0) + FORCE_CLOSE_GRACE):
            steps.append(Stop(instance.id))
        elif not instance.is_force_closed and now >= force_close_at(desired, instance):
            steps.append(ForceClose(instance.id))
    return steps


def admit_ready(desired: DesiredState, candidates: Iterable[ObservedInstance], now: float) -> list[Step]:
    """Return Admit steps for the candidates that have been ready for `min_ready` seconds."""
    return [
        Admit(instance.id)
        for instance in candidates
        if not (_is_fully_admitted(instance) or instance.failed)
        and instance.container == "running"
        and instance.ready_at is not None
        and now >= instance.ready_at + desired.min_ready
    ]


def withdraw_unready(candidates: Iterable[ObservedInstance]) -> list[Step]:
    """Return Withdraw steps for the candidates that are admitted but not ready any more.

    Such an instance failed the engine's own health check, or was restarted. The instance gets no new requests until it is
    ready again.
    """
    return [
        Withdraw(instance.id)
        for instance in candidates
        if instance.routed
        and instance.admitted
        and instance.ready_at is None
        and instance.container == "running"
        and not instance.failed
    ]


def reuse_draining(desired: DesiredState, classification: Classification, now: float) -> list[Step]:
    """Return steps that recall as many draining instances as are missing, because these are warm.

    The list is empty if no instance can be recalled. Otherwise creation and scale-down wait for the next reconcile.
    """
    taken = {instance.slot for instance in classification.living_matching}
    missing = desired.replicas - len(classification.living_matching)
    recalled: dict[int, str] = {}
    for instance in sorted(classification.draining, key=lambda instance: (instance.slot, instance.id)):
        if _is_recallable(desired, instance) and instance.slot not in taken and len(recalled) < missing:
            recalled.setdefault(instance.slot, instance.id)
    if not recalled:
        return []
    rest = [instance for instance in classification.draining if instance.id not in recalled.values()]
    return [
        *(Recall(id) for id in recalled.values()),
        *drain_and_remove(desired, rest, now),
        *admit_ready(desired, classification.matching, now),
    ]


def _is_recallable(desired: DesiredState, instance: ObservedInstance) -> bool:
    """Return whether the draining instance matches again, has ended nothing yet, and could serve now."""
    return (
        matches(desired, instance)
        and instance.deployment != desired.rolled_back_deployment
        and _is_warm(instance)
        and not (instance.failed or instance.died or instance.stopping or instance.is_force_closed)
    )


def _is_warm(instance: ObservedInstance) -> bool:
    """Return whether the instance is ready, known to a router and healthy.

    An instance that a registry lists as out of service may report itself unhealthy (Spring's health check does), until the
    registry lists it as up again.
    """
    return (
        instance.container == "running"
        and instance.known_to_router
        and instance.ready_at is not None
        and (instance.healthy or instance.drain_not_before > 0)
        and instance.unhealthy_since is None
    )


def _is_fully_admitted(instance: ObservedInstance) -> bool:
    """Return whether the instance needs no Admit step.

    A healthy instance without `auto_restart` needs an Admit step even if the routers admit it, or if it is a worker, because
    that step also enables `auto_restart`.
    """
    return (instance.admitted or not instance.routed) and (instance.auto_restart or instance.unhealthy_since is not None)
