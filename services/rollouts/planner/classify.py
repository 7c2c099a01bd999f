"""Observed instances classified against the desired state: draining, matching, surplus and serving."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from services.rollouts.planner.desired import DesiredState
from services.rollouts.planner.observed import ObservedInstance


@dataclass(frozen=True)
class Classification:
    """The observed instances, classified against the desired state."""

    draining: list[ObservedInstance]
    matching: list[ObservedInstance]
    """Instances that match the desired state, at most `replicas`.

    A dead instance never takes the place of a living one.
    """
    surplus: list[ObservedInstance]
    """Instances that must go: outdated, or more than `replicas`."""
    serving: frozenset[str]
    """Ids of all instances that count as available now."""
    surge_budget: int
    """The number of further instances that may exist; negative if there are too many."""

    @property
    def active(self) -> list[ObservedInstance]:
        return [*self.matching, *self.surplus]

    @property
    def living_matching(self) -> list[ObservedInstance]:
        return [instance for instance in self.matching if not instance.dead]

    @property
    def living_surplus(self) -> list[ObservedInstance]:
        return [instance for instance in self.surplus if not instance.dead]

    @property
    def matching_serving(self) -> int:
        return sum(instance.id in self.serving for instance in self.matching)


def classify(desired: DesiredState, observed: Sequence[ObservedInstance], now: float) -> Classification:
    """Return the observed instances classified against the desired state.

    In a rollback, an instance that the deployment created before the rollback and that does not serve is surplus, even if
    the instance's hash matches.
    """
    serving = frozenset(instance.id for instance in observed if is_available(desired, instance, now))
    staying = [instance for instance in observed if instance.draining_since is None]
    matching = [
        instance
        for instance in staying
        if matches(desired, instance) and (instance.id in serving or not belongs_to_rollback(desired, instance))
    ]
    matching.sort(
        key=lambda instance: (
            instance.dead,
            bool(instance.lost),
            instance.id not in serving,
            instance.deployment == desired.rolled_back_deployment,
            instance.slot,
            instance.id,
        )
    )
    retained = matching[: max(desired.replicas, 0)]
    retained_ids = {instance.id for instance in retained}
    return Classification(
        draining=[instance for instance in observed if instance.draining_since is not None],
        matching=retained,
        surplus=[instance for instance in staying if instance.id not in retained_ids],
        serving=serving,
        surge_budget=desired.replicas + desired.surge - sum(counts_against_surge(instance) for instance in observed),
    )


def matches(desired: DesiredState, instance: ObservedInstance) -> bool:
    """Return whether the instance has the desired hash and, for a restart, the required deployment."""
    return instance.hash == desired.hash and desired.required_deployment in (None, instance.deployment)


def counts_against_surge(instance: ObservedInstance) -> bool:
    """Return whether the instance has a container that is not stopped, or may be about to have one.

    The start of an instance without a container may be in progress.
    """
    return not instance.dead


def is_available(desired: DesiredState, instance: ObservedInstance, now: float) -> bool:
    """Return whether the instance serves and, if it is a worker, has been ready for `min_ready` seconds.

    An instance with a port is not admitted before these seconds are over.
    """
    return instance.serves and (instance.routed or now >= (instance.ready_at or 0) + desired.min_ready)


def belongs_to_rollback(desired: DesiredState, instance: ObservedInstance) -> bool:
    """Return whether the deployment that is rolled back created the instance, before the rollback began."""
    return instance.deployment == desired.rolled_back_deployment and instance.created_at < desired.started_at


def outdated(desired: DesiredState, classification: Classification) -> list[ObservedInstance]:
    """Return the living surplus instances that do not match the desired state."""
    return [instance for instance in classification.living_surplus if not matches(desired, instance)]
