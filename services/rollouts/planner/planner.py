"""The planner: a total function of (desired, observed, now), without a clock, I/O or a database.

The planner never asks for more than this, at every instant: living instances ≤ replicas + surge, and serving instances
≥ replicas − unavailable (docs/why-a-pure-planner.md).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from services.rollouts.planner.classify import Classification, classify
from services.rollouts.planner.desired import DesiredState
from services.rollouts.planner.instance_steps import admit_ready, drain_and_remove, reuse_draining, withdraw_unready
from services.rollouts.planner.observed import ObservedInstance
from services.rollouts.planner.progress import check_failure, compute_progress, next_deadline
from services.rollouts.planner.steps import Outcome, Plan, Step, Succeeded
from services.rollouts.planner.strategies import recreate, rolling
from services.rollouts.planner.strategy import Strategy
from services.spec import StrategyName

STRATEGIES: Mapping[StrategyName, Strategy] = {"rolling": rolling, "recreate": recreate}


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
        strategy = STRATEGIES[desired.strategy]
        steps = reuse_draining(desired, classification, now) or strategy.plan(desired, classification, now)
        outcome = Succeeded() if not steps and _is_reached(desired, classification) else None
    return Plan(
        tuple(steps), compute_progress(desired, classification), outcome, next_deadline(desired, classification, now)
    )


def _is_reached(desired: DesiredState, classification: Classification) -> bool:
    """Return whether exactly the desired instances exist, and all of them serve."""
    serving = classification.matching_serving
    return not classification.draining and len(classification.active) == serving == desired.replicas


def _plan_paused(desired: DesiredState, classification: Classification, now: float) -> list[Step]:
    """Return the steps of a paused deployment.

    Draining continues, and instances of earlier deployments may be admitted again. No instance is created, and no further
    instance begins to drain.
    """
    earlier = [instance for instance in classification.active if instance.deployment != desired.deployment]
    return [
        *drain_and_remove(desired, classification.draining, now),
        *withdraw_unready(classification.active),
        *admit_ready(desired, earlier, now),
    ]
