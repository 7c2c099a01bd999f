"""A dry run of the planner: the steps of all successive reconciles if every step succeeds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

from services.rollouts.planner.desired import DesiredState
from services.rollouts.planner.observed import ObservedInstance
from services.rollouts.planner.planner import plan
from services.rollouts.planner.steps import (
    Admit,
    Create,
    ForceClose,
    MarkDraining,
    Recall,
    Remove,
    Start,
    Step,
    Stop,
    Withdraw,
)

StepAction = Literal["start", "admit", "recall", "withdraw", "cut", "stop", "remove"]
MAX_ITERATIONS = 2000
"""An upper bound: a deployment of the largest service, one instance at a time, needs fewer iterations."""

_ACTIONS: dict[type[Step], StepAction] = {
    Create: "start", Start: "start", Admit: "admit", Recall: "recall", Withdraw: "withdraw", ForceClose: "cut", Stop: "stop",
    Remove: "remove",
}  # fmt: skip


@dataclass(frozen=True)
class SimulatedStep:
    """One step of the dry run.

    Steps with the same `turn` (the number of the reconcile) run concurrently, before the steps of the next `turn`.
    """

    turn: int
    action: StepAction
    instance: str
    slot: int


def simulate(
    desired: DesiredState, observed: Iterable[ObservedInstance], now: float, names: Iterator[str], routed: bool
) -> list[SimulatedStep]:
    """Return the steps from `observed` to `desired` if every step succeeds; a pure function.

    A started instance is ready immediately, and a draining instance has nothing in flight. `names` yields the ids that new
    instances would get. `routed` says whether new instances have a port. A MarkDraining step is not listed, but the Withdraw
    step that follows is.
    """
    without_deadline = replace(desired, deadline=None)
    instances = {instance.id: instance for instance in observed}
    simulated: list[SimulatedStep] = []
    turn = 1
    for _ in range(MAX_ITERATIONS):
        next_plan = plan(without_deadline, list(instances.values()), now)
        if next_plan.outcome is not None:
            break
        before, removed = dict(instances), set[str]()
        for step in next_plan.steps:
            if isinstance(step, Create):
                instance = _new(next(names), step.slot, desired, now, routed)
            else:
                instance = instances[step.instance]
            instances[instance.id] = _outcome(step, instance, now)
            removed |= {instance.id} if isinstance(step, Remove) else set()
            if (action := _ACTIONS.get(type(step))) is not None:
                simulated.append(SimulatedStep(turn, action, instance.id, instance.slot))
        instances = {id: _all_healthy(instance, now) for id, instance in instances.items() if id not in removed}
        turn += bool(simulated) and simulated[-1].turn == turn
        if instances == before:
            if next_plan.requeue_at is None:
                break
            now = next_plan.requeue_at
    return simulated


def _new(id: str, slot: int, desired: DesiredState, now: float, routed: bool) -> ObservedInstance:
    deployment = desired.deployment or 0
    return ObservedInstance(id, slot, desired.hash, deployment, "none", routed=routed, created_at=now, auto_restart=False)


def _outcome(step: Step, instance: ObservedInstance, now: float) -> ObservedInstance:
    """Return the instance as it is after the step."""
    match step:
        case Create() | Start():
            return replace(instance, container="running", died=False, started_at=now, ready_at=now)
        case Admit():
            return replace(
                instance,
                admitted=instance.routed,
                known_to_router=instance.routed,
                drained=not instance.routed,
                auto_restart=True,
            )
        case Recall():
            return replace(instance, draining_since=None, force_closed_at=None)
        case MarkDraining():
            return replace(instance, draining_since=now)
        case Withdraw() | ForceClose():
            return replace(instance, admitted=False)
        case Stop():
            return replace(instance, container="exited")
        case Remove():
            return instance


def _all_healthy(instance: ObservedInstance, now: float) -> ObservedInstance:
    """Return the instance as healthy if it runs, or as drained if it is draining and withdrawn."""
    if instance.draining_since is not None:
        return instance if instance.admitted else replace(instance, drained=True, in_flight=0)
    if instance.container != "running":
        return instance
    return replace(
        instance, healthy=True, unhealthy_since=None, ready_at=now if instance.ready_at is None else instance.ready_at
    )
