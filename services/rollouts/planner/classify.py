"""The world as a target sorts it: what leaves, what is wanted, what is not, and what serves meanwhile."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from services.rollouts.planner.desired import Target
from services.rollouts.planner.observed import Seen


@dataclass(frozen=True)
class Scene:
    """The world, sorted by what the target says of it."""

    leaving: list[Seen]
    wanted: list[Seen]
    """What is to run, at most `replicas`; dead ones hold no place that a living one could have."""
    unwanted: list[Seen]
    """Old, or too many."""
    serving: frozenset[str]
    """Ids of all that count for availability now."""
    room: int
    """How many more there may be."""

    @property
    def staying(self) -> list[Seen]:
        return [*self.wanted, *self.unwanted]

    @property
    def serving_wanted(self) -> int:
        return sum(seen.id in self.serving for seen in self.wanted)


def sort_out(target: Target, world: Sequence[Seen], now: float) -> Scene:
    """Going back, what the deployment had begun and does not serve is not wanted, whatever runs in it."""
    serving = frozenset(seen.id for seen in world if counts(target, seen, now))
    staying = [seen for seen in world if seen.leaving_at is None]
    matching = [seen for seen in staying if is_wanted(target, seen) and (seen.id in serving or not is_undone(target, seen))]
    matching.sort(
        key=lambda seen: (seen.dead, seen.id not in serving, seen.deployment == target.surplus_first, seen.slot, seen.id)
    )
    wanted = matching[: max(target.replicas, 0)]
    chosen = {seen.id for seen in wanted}
    return Scene(
        leaving=[seen for seen in world if seen.leaving_at is not None],
        wanted=wanted,
        unwanted=[seen for seen in staying if seen.id not in chosen],
        serving=serving,
        room=target.replicas + target.surge - sum(takes_room(seen) for seen in world),
    )


def is_wanted(target: Target, seen: Seen) -> bool:
    """What runs in it is what is to run."""
    return seen.hash == target.hash and target.only_born_in in (None, seen.deployment)


def takes_room(seen: Seen) -> bool:
    """It has a container that is not stopped, or is about to: its start may be under way."""
    return not seen.dead


def counts(target: Target, seen: Seen, now: float) -> bool:
    """It serves, and for a worker: has been ready for long enough (what has a port is not admitted before)."""
    return seen.serves and (seen.routed or now >= (seen.ready_at or 0) + target.min_ready)


def is_undone(target: Target, seen: Seen) -> bool:
    """Begun by the deployment that is being undone."""
    return seen.deployment == target.surplus_first and seen.created_at < target.since


def different(target: Target, scene: Scene) -> list[Seen]:
    """Living ones in which something else runs than is to run."""
    return [seen for seen in scene.unwanted if not seen.dead and not is_wanted(target, seen)]
