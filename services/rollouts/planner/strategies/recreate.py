"""The strategy `recreate`: every outdated instance goes before a new one starts."""

from __future__ import annotations

from services.rollouts.planner.classify import Classification, counts_against_surge, outdated
from services.rollouts.planner.desired import DesiredState
from services.rollouts.planner.replacement import create_missing, replace_instances, surplus_to_drain
from services.rollouts.planner.steps import Step


def plan(desired: DesiredState, classification: Classification, now: float) -> list[Step]:
    """Return the steps of one reconcile: drain all surplus instances while one is outdated, then create."""
    if outdated(desired, classification):
        return replace_instances(desired, classification, [], classification.living_surplus, now)
    leaving = any(counts_against_surge(instance) for instance in classification.draining)
    created = [] if leaving else create_missing(desired, classification, now)
    surplus = surplus_to_drain(desired, classification, creating=bool(created))
    return replace_instances(desired, classification, created, surplus, now)
