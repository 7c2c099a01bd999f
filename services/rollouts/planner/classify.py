"""The world as a target sorts it: what leaves, what is wanted, what is not, and what serves meanwhile."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from services.rollouts.planner.desired import Target
from services.rollouts.planner.observed import ObservedInstance


@dataclass(frozen=True)
class Scene:
    """The world, sorted by what the target says of it."""

    leaving: list[ObservedInstance]
    wanted: list[ObservedInstance]
    """What is to run, at most `replicas`; dead ones hold no place that a living one could have."""
    unwanted: list[ObservedInstance]
    """Old, or too many."""
    serving: frozenset[str]
    """Ids of all that count for availability now."""
    room: int
    """How many more there may be."""

    @property
    def staying(self) -> list[ObservedInstance]:
        return [*self.wanted, *self.unwanted]

    @property
    def serving_wanted(self) -> int:
        return sum(instance.id in self.serving for instance in self.wanted)


def sort_out(target: Target, world: Sequence[ObservedInstance], now: float) -> Scene:
    """Going back, what the deployment had begun and does not serve is not wanted, whatever runs in it."""
    serving = frozenset(instance.id for instance in world if counts(target, instance, now))
    staying = [instance for instance in world if instance.draining_since is None]
    matching = [
        instance
        for instance in staying
        if is_wanted(target, instance) and (instance.id in serving or not is_undone(target, instance))
    ]
    matching.sort(
        key=lambda instance: (
            instance.dead,
            instance.id not in serving,
            instance.deployment == target.surplus_first,
            instance.slot,
            instance.id,
        )
    )
    wanted = matching[: max(target.replicas, 0)]
    chosen = {instance.id for instance in wanted}
    return Scene(
        leaving=[instance for instance in world if instance.draining_since is not None],
        wanted=wanted,
        unwanted=[instance for instance in staying if instance.id not in chosen],
        serving=serving,
        room=target.replicas + target.surge - sum(takes_room(instance) for instance in world),
    )


def is_wanted(target: Target, instance: ObservedInstance) -> bool:
    """What runs in it is what is to run."""
    return instance.hash == target.hash and target.only_born_in in (None, instance.deployment)


def takes_room(instance: ObservedInstance) -> bool:
    """It has a container that is not stopped, or is about to: its start may be under way."""
    return not instance.dead


def counts(target: Target, instance: ObservedInstance, now: float) -> bool:
    """It serves, and for a worker: has been ready for long enough (what has a port is not admitted before)."""
    return instance.serves and (instance.routed or now >= (instance.ready_at or 0) + target.min_ready)


def is_undone(target: Target, instance: ObservedInstance) -> bool:
    """Begun by the deployment that is being undone."""
    return instance.deployment == target.surplus_first and instance.created_at < target.since


def different(target: Target, scene: Scene) -> list[ObservedInstance]:
    """Living ones in which something else runs than is to run."""
    return [instance for instance in scene.unwanted if not instance.dead and not is_wanted(target, instance)]
