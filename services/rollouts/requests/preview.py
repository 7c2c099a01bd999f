"""The preview of a deployment: its result, its changes and its steps, before it is requested."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count

from services.rollouts.planner.classify import matches
from services.rollouts.planner.desired import DesiredState
from services.rollouts.planner.observed import ObservedInstance
from services.rollouts.planner.simulate import SimulatedStep, StepAction, simulate
from services.rollouts.requests.spec_diff import FieldChange

_STEP_MESSAGES: Mapping[StepAction, str] = {
    "start": "start {} and wait until it is ready",
    "admit": "route requests to {}",
    "recall": "recall {}, which was draining",
    "withdraw": "stop routing to {} and wait for in-flight requests",
    "cut": "force-close the requests of {}",
    "stop": "stop {}",
    "remove": "remove {}",
}


@dataclass(frozen=True)
class PlannedStep:
    """A step of the plan. Steps with the same `turn` run side by side.

    `revision` is the revision in which the instance was, or would be, created.
    """

    turn: int
    action: StepAction
    instance: str
    slot: int
    revision: int
    message: str


@dataclass(frozen=True)
class Preview:
    """The preview of a request, as docs/api.md describes it field by field. Secrets are redacted."""

    service: str
    kind: str
    message: str
    revision: int | None
    from_revision: int | None
    replicas: int
    from_replicas: int
    strategy: str
    profile: str | None
    image: str | None
    image_id: str | None
    diff: list[FieldChange]
    warnings: list[dict[str, str]]
    unchanged: bool = False
    replaces_instances: bool = False
    """Whether instances that run now are replaced by others."""
    steps: list[PlannedStep] = field(default_factory=list)


@dataclass(frozen=True)
class PlanInput:
    """The planner's input when a deployment begins, and the properties of instances to be created."""

    desired: DesiredState
    observed: Sequence[ObservedInstance]
    created: Mapping[str, int]
    """Instance → the revision in which it was created."""
    service: str
    revision: int
    next_instance: int
    routed: bool

    def with_steps(self, preview: Preview, now: float) -> Preview:
        """Return the preview with its steps and their summary.

        The function is pure. It takes seconds of work for a hundred instances that are replaced one at a time.
        """
        names = (f"{self.service}-r{self.revision}-{n}" for n in count(self.next_instance))
        steps = [self._planned(step) for step in simulate(self.desired, self.observed, now, names, self.routed)]
        others = [instance for instance in self.observed if not instance.dead and not matches(self.desired, instance)]
        replaces = bool(others) and self.desired.replicas > 0
        return replace(preview, steps=steps, message=_summary(steps), replaces_instances=replaces)

    def _planned(self, step: SimulatedStep) -> PlannedStep:
        revision = self.created.get(step.instance, self.revision)
        return PlannedStep(
            step.turn, step.action, step.instance, step.slot, revision, _STEP_MESSAGES[step.action].format(step.instance)
        )


def _summary(steps: Sequence[PlannedStep]) -> str:
    """Return a sentence with the numbers of started and removed instances, in the order of the steps."""
    actions = [step.action for step in steps]
    verbs: tuple[tuple[StepAction, str], ...] = (("start", "starts"), ("remove", "drains and removes"))
    found = sorted((actions.index(action), verb, actions.count(action)) for action, verb in verbs if action in actions)
    parts = [f"{verb} {number}" for _, verb, number in found]
    if not parts:
        return "starts and stops no instance"
    parts[0] += f" instance{'s' * (found[0][2] != 1)}"
    return ", then ".join(parts)
