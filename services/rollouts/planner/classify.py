"""The world as a target sorts it: what leaves, what is wanted, what is not, and what serves meanwhile."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from services.rollouts.planner.desired import DesiredState
from services.rollouts.planner.observed import ObservedInstance


@dataclass(frozen=True)
class Classification:
    """The world, sorted by what the target says of it."""

    draining: list[ObservedInstance]
    matching: list[ObservedInstance]
    """What is to run, at most `replicas`; dead ones hold no place that a living one could have."""
    surplus: list[ObservedInstance]
    """Old, or too many."""
    serving: frozenset[str]
    """Ids of all that count for availability now."""
    surge_budget: int
    """How many more there may be."""

    @property
    def active(self) -> list[ObservedInstance]:
        return [*self.matching, *self.surplus]

    @property
    def matching_serving(self) -> int:
        return sum(instance.id in self.serving for instance in self.matching)


def classify(desired: DesiredState, observed: Sequence[ObservedInstance], now: float) -> Classification:
    """Going back, what the deployment had begun and does not serve is not wanted, whatever runs in it."""
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
            instance.id not in serving,
            instance.deployment == desired.rolled_back_deployment,
            instance.slot,
            instance.id,
        )
    )
    wanted = matching[: max(desired.replicas, 0)]
    chosen = {instance.id for instance in wanted}
    return Classification(
        draining=[instance for instance in observed if instance.draining_since is not None],
        matching=wanted,
        surplus=[instance for instance in staying if instance.id not in chosen],
        serving=serving,
        surge_budget=desired.replicas + desired.surge - sum(counts_against_surge(instance) for instance in observed),
    )


def matches(desired: DesiredState, instance: ObservedInstance) -> bool:
    """What runs in it is what is to run."""
    return instance.hash == desired.hash and desired.required_deployment in (None, instance.deployment)


def counts_against_surge(instance: ObservedInstance) -> bool:
    """It has a container that is not stopped, or is about to: its start may be under way."""
    return not instance.dead


def is_available(desired: DesiredState, instance: ObservedInstance, now: float) -> bool:
    """It serves, and for a worker: has been ready for long enough (what has a port is not admitted before)."""
    return instance.serves and (instance.routed or now >= (instance.ready_at or 0) + desired.min_ready)


def belongs_to_rollback(desired: DesiredState, instance: ObservedInstance) -> bool:
    """Begun by the deployment that is being undone."""
    return instance.deployment == desired.rolled_back_deployment and instance.created_at < desired.started_at


def outdated(desired: DesiredState, classification: Classification) -> list[ObservedInstance]:
    """Living ones in which something else runs than is to run."""
    return [instance for instance in classification.surplus if not instance.dead and not matches(desired, instance)]
