"""The strategy `rolling`: new instances start beside the old ones, which drain as the new ones serve."""

from __future__ import annotations

from services.rollouts.planner.classify import Classification
from services.rollouts.planner.desired import DesiredState
from services.rollouts.planner.replacement import create_missing, replace_instances, surplus_to_drain
from services.rollouts.planner.steps import Step


def plan(desired: DesiredState, classification: Classification, now: float) -> list[Step]:
    """Return the steps of one reconcile, within `max_surge` and `max_unavailable`."""
    created = create_missing(desired, classification, now)
    surplus = surplus_to_drain(desired, classification, creating=bool(created))
    return replace_instances(desired, classification, created, surplus, now)
