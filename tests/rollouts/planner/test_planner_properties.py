"""Random histories of a simulated cluster: no plan violates an invariant, and every deployment ends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.rollouts.planner.classify import matches
from services.rollouts.planner.desired import DesiredState
from services.rollouts.planner.observed import ObservedInstance
from services.rollouts.planner.planner import plan
from services.rollouts.planner.steps import Failed, Plan, Succeeded
from tests.support.planner_simulation import (
    GOOD,
    InstanceBehaviour,
    SimulatedCluster,
    SimulatedInstance,
    check_plan,
    in_order,
)
from tests.tiers import examples

HISTORIES = examples(1_000, full=10_000)
PROGRESS_DEADLINE = 60.0
T = TypeVar("T")

FATES = [
    *[GOOD] * 6,
    *[
        InstanceBehaviour(ready=4),
        InstanceBehaviour(busy=3),
        InstanceBehaviour(busy=8, ready=15),
        InstanceBehaviour(busy=2, listed=12),
    ]
    * 2,
    InstanceBehaviour(ready=None),
    InstanceBehaviour(refused=True),
    InstanceBehaviour(dies=0.5),
    InstanceBehaviour(dies=2.5),
    InstanceBehaviour(dies=7, returns=True),
    InstanceBehaviour(busy=500),
    InstanceBehaviour(busy=500, listed=500),
]
POLICIES: list[dict[str, Any]] = [
    {},
    {"max_surge": 1},
    {"max_surge": 0, "max_unavailable": 1},
    {"max_surge": 1, "max_unavailable": 1},
    {"max_surge": "50%", "max_unavailable": "50%"},
    {"max_surge": 0, "max_unavailable": "25%"},
    {"strategy": "recreate"},
    {"max_surge": "25%", "min_ready": 3.0},
    {"max_surge": 1, "drain_timeout": 90.0},
]
KINDS = [
    *["go on"] * 24, *["turn"] * 3, *["turn faultily"] * 6, *["wait"] * 3, "wait long", *["deploy"] * 3, "scale", "scale",
    "restart", "remove", *["abort"] * 3, "pause", *["resume"] * 2, *["die"] * 2, "die and return", "vanish",
    *["sicken"] * 4, *["heal"] * 2, "reload", *["disconnect"] * 2,
]  # fmt: skip
operations = st.tuples(st.sampled_from(KINDS), st.integers(0, 2**24))


class ChoiceSequence:
    """One number that gives many small choices, so that a history stays short and shrinks well."""

    def __init__(self, number: int) -> None:
        self.number = number

    def pick(self, options: Sequence[T]) -> T:
        self.number, index = divmod(self.number, len(options))
        return options[index]


@dataclass
class RolloutModel:
    """Reduced model of the controller and the state writer around the planner."""

    world: SimulatedCluster
    policy: dict[str, Any] = field(default_factory=dict)
    present: tuple[str, int] = ("", 0)
    present_policy: dict[str, Any] = field(default_factory=dict)
    wanted: tuple[str, int] = ("", 0)
    restart: bool = False
    status: str = "steady"
    failure_action: str = "rollback"
    deployment: int = 0
    since: float = 0
    deadline: float = 0
    milestone: int = 0
    ended: list[str] = field(default_factory=list)

    @property
    def target(self) -> DesiredState:
        if self.status == "steady":
            return self._to(self.present, self.present_policy)
        now = {
            "deployment": self.deployment,
            "started_at": self.since,
            "deadline": self.deadline,
            "milestone": self.milestone,
        }
        if self.status == "rolling_back":
            return self._to(self.present, self.present_policy, **now, rolled_back_deployment=self.deployment)
        born_in = self.deployment if self.restart else None
        return self._to(self.wanted, self.policy, **now, paused=self.status == "paused", required_deployment=born_in)

    def _to(self, where: tuple[str, int], policy: dict[str, Any], **others: Any) -> DesiredState:
        timing = {"start_period": 20.0, "drain_timeout": 10.0, "stop_grace": 5.0}
        return DesiredState(hash=where[0], replicas=where[1], **{**timing, **policy, **others})

    def begin(self, wanted: tuple[str, int], policy: dict[str, Any], dice: ChoiceSequence, *, restart: bool = False) -> None:
        if self.status != "steady":
            self.ended.append("superseded")
        self.deployment += 1
        self.wanted, self.policy, self.restart = wanted, policy, restart
        self.failure_action = dice.pick(["rollback", "rollback", "pause"])
        self._set_out("progressing")

    def _set_out(self, status: str) -> None:
        self.world.now += 0.001  # no two events have the same time
        self.status, self.since, self.milestone = status, self.world.now, 0
        self.deadline = self.world.now + PROGRESS_DEADLINE
        self.world.head_for(self.target)

    def act(self, action: str) -> None:
        if action == "pause" and self.status == "progressing":
            self.status = "paused"
        elif action == "resume" and self.status == "paused":
            self._set_out("progressing")
        elif action == "abort" and self.status in ("progressing", "paused"):
            self._set_out("rolling_back")

    def turn(self, faults: Sequence[str] = (), order: int = 0) -> bool:
        """Observe, plan, run the steps (whole, unless `faults` are given). Return False if there was nothing to do."""
        seen, target, now = self.world.observed(), self.target, self.world.now
        made = plan(target, seen, now)
        check_plan(target, seen, now, made)
        if self.status != "steady" and made.progress.milestone > self.milestone:
            self.milestone, self.deadline = made.progress.milestone, now + PROGRESS_DEADLINE
        if not made.steps:
            self._check_requeue_at(target, made)
        if self._ends(made):
            return True
        for number, step in enumerate(in_order(made.steps, order)):
            self.world.take(step, target, faults[number % len(faults)] if faults else "whole")  # type: ignore[arg-type]
        return bool(made.steps)

    def _ends(self, made: Plan) -> bool:
        if self.status == "steady" or made.outcome is None:
            return False
        if isinstance(made.outcome, Failed):
            if self.status == "paused" and self.failure_action == "pause":
                return False
            if self.status == "rolling_back":
                self._finish("rollback_failed")
            elif self.failure_action == "pause" and self.status == "progressing":
                self.status = "paused"
            else:
                self._set_out("rolling_back")
            return True
        self._check_arrival()
        if self.status == "progressing":
            self.present, self.present_policy = self.wanted, self.policy
        self._finish("succeeded" if self.status == "progressing" else "rolled_back")
        return True

    def _check_requeue_at(self, target: DesiredState, made: Plan) -> None:
        """Check that until `requeue_at` the plan does not change by time alone."""
        before = self.world.now + 1e6 if made.requeue_at is None else made.requeue_at - 1e-5
        later = plan(target, self.world.observed(), before)
        assert (later.steps, later.outcome) == (made.steps, made.outcome), f"it should have looked again: {later}"

    def go_on(self) -> bool:
        """Reconcile, or wait for the next event or deadline. Return False if there is none."""
        if self.turn():
            return True
        made = plan(self.target, self.world.observed(), self.world.now)
        moments = [moment for moment in (made.requeue_at, self.world.next_event()) if moment is not None]
        if moments:
            self.world.wait(min(moments) - self.world.now, self.target)
        return bool(moments)

    def _check_arrival(self) -> None:
        """Check that exactly the desired instances serve, and that there are no others."""
        target, copies = self.target, self.world.observed()
        assert len(copies) == target.replicas, "done, and there are more or fewer than wanted"
        assert all(copy.serves and matches(target, copy) for copy in copies), "done, and not all serve"

    def _finish(self, status: str) -> None:
        self.ended.append(status)
        self.status = "steady"
        self.world.head_for(self.target)

    def happen(self, kind: str, dice: ChoiceSequence) -> None:
        """Apply one operation of a history."""
        observed = self.world
        copies = list(observed.copies.values())
        copy: SimulatedInstance | None = dice.pick(copies) if copies else None
        if kind == "go on":
            for _ in range(dice.pick([2, 4, 8, 16])):
                if not self.go_on():
                    break
        elif kind == "turn":
            self.turn()
        elif kind == "turn faultily":
            order = dice.pick(range(24))
            self.turn([dice.pick(["whole", "half", "not"]) for _ in range(5)], order)
        elif kind.startswith("wait"):
            observed.wait(dice.pick([0.1, 1, 2, 5]) if kind == "wait" else dice.pick([15, 30, 70]), self.target)
        elif kind == "deploy":
            policy = dice.pick(POLICIES)
            wanted = (dice.pick(["a", "b", "c"]), dice.pick([1, 2, 3, 4, 0]))
            self.begin(wanted, policy, dice)
        elif kind == "scale" and self.present[0]:
            self.begin((self.present[0], dice.pick(range(6))), self.present_policy, dice)
        elif kind == "restart" and self.present[0]:
            self.begin(self.present, self.present_policy, dice, restart=True)
        elif kind == "remove" and self.present[0]:
            self.begin(("", 0), self.present_policy, dice)
        elif kind in ("abort", "pause", "resume"):
            self.act(kind)
        elif kind == "reload":
            observed.reload(dice.pick([1, 12, 100]))
        elif copy is not None:
            if kind in ("die", "die and return", "vanish"):
                observed.die(copy, returns=kind == "die and return", vanishes=kind == "vanish")
            elif kind == "sicken":
                observed.make_unhealthy(copy)
            elif kind == "heal":
                observed.heal(copy)
            elif kind == "disconnect":
                observed.disconnect(copy)
        observed.check(self.target)

    def settle(self) -> None:
        """Check that without faults the deployment ends, and that the service is then as desired."""
        for copy in self.world.copies.values():
            self.world.heal(copy)
        back_before = self.status == "rolling_back"
        ended = len(self.ended)
        self._run_until(lambda: self.status == "steady")
        if not back_before:
            assert "rollback_failed" not in self.ended[ended:], "going back failed although nothing was wrong any more"
        self._run_until(self._is_still)
        self._check_arrival()

    def _is_still(self) -> bool:
        return self.status == "steady" and isinstance(
            plan(self.target, self.world.observed(), self.world.now).outcome, Succeeded
        )

    def _run_until(self, there: Any) -> None:
        for _ in range(300):
            if there():
                return
            if self.status == "paused":
                self.act("resume")
            assert self.go_on(), f"nothing will ever happen again: {self.target} {self.world.observed()}"
        raise AssertionError(f"it does not end: {self.target} {self.world.observed()}")


def run_history(fates: Sequence[int], routed: bool, history: Sequence[tuple[str, int]]) -> RolloutModel:
    """Run a history from its first deployment to its end."""
    rest = [FATES[fate] for fate in fates]
    over = False

    def next_fate() -> InstanceBehaviour:
        return rest.pop(0) if rest and not over else GOOD

    course = RolloutModel(SimulatedCluster(next_fate, routed=routed))
    course.begin(("a", 3), POLICIES[len(history) % len(POLICIES)], ChoiceSequence(len(fates)))
    for kind, number in history:
        course.happen(kind, ChoiceSequence(number))
    over = True
    course.settle()
    return course


histories = given(
    fates=st.lists(st.integers(0, len(FATES) - 1), min_size=6, max_size=24),
    routed=st.sampled_from([True, True, True, False]),
    history=st.lists(operations, min_size=25, max_size=80),
)
quietly: dict[str, Any] = {"deadline": None, "suppress_health_check": list(HealthCheck), "print_blob": True}


@histories
@settings(max_examples=50, **quietly)
def test_random_histories_violate_no_invariant(fates: list[int], routed: bool, history: list[tuple[str, int]]) -> None:
    run_history(fates, routed, history)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@histories
@settings(max_examples=HISTORIES, **quietly)
def test_many_random_histories_violate_no_invariant(fates: list[int], routed: bool, history: list[tuple[str, int]]) -> None:
    run_history(fates, routed, history)


times = st.sampled_from([None, 0.0, 1.0, 50.0, 99.0, 100.0, 101.0, 1e12])
anything = st.builds(
    ObservedInstance,
    id=st.sampled_from(["w-1", "w-2", "w-3", "w-4", "w-5", "w-6"]),
    slot=st.integers(0, 5),
    hash=st.sampled_from(["a", "b", ""]),
    deployment=st.integers(0, 3),
    container=st.sampled_from(["none", "created", "running", "exited"]),
    routed=st.booleans(),
    created_at=st.sampled_from([0.0, 60.0, 100.0]),
    started_at=times,
    ready_at=times,
    admitted=st.booleans(),
    healthy=st.booleans(),
    unhealthy_since=times,
    lost=st.sampled_from(["", "", "lost its address"]),
    known_to_router=st.booleans(),
    drained=st.booleans(),
    in_flight=st.integers(0, 3),
    draining_since=times,
    stopping=st.booleans(),
    force_closed_at=times,
    died=st.booleans(),
    failure=st.sampled_from([None, ("no_capacity", "no memory")]),
)
policies = st.sampled_from(POLICIES)


@given(
    observed=st.lists(anything, max_size=6, unique_by=lambda seen: seen.id),
    spec_hash=st.sampled_from(["a", "b", ""]),
    replicas=st.integers(0, 4),
    policy=policies,
    deployment=st.sampled_from([None, 1, 2]),
    others=st.fixed_dictionaries(
        {
            "paused": st.booleans(),
            "deadline": times,
            "started_at": st.sampled_from([0.0, 70.0]),
            "required_deployment": st.sampled_from([None, 1, 2]),
            "rolled_back_deployment": st.sampled_from([None, 1, 2]),
            "backoff_until": st.sampled_from([0.0, 200.0]),
        }
    ),
)
@settings(max_examples=400, **quietly)
def test_planner_returns_valid_plan_for_any_observed_state(
    observed: list[ObservedInstance],
    spec_hash: str,
    replicas: int,
    policy: dict[str, Any],
    deployment: int | None,
    others: dict[str, Any],
) -> None:
    target = DesiredState(spec_hash, replicas, deployment, **others, **policy)
    made = plan(target, observed, 100.0)
    check_plan(target, observed, 100.0, made)
    assert plan(target, list(reversed(observed)), 100.0).outcome == made.outcome
