"""The interface of a strategy: the way in which instances of the desired revision replace the others."""

from __future__ import annotations

from typing import Protocol

from services.rollouts.planner.classify import Classification
from services.rollouts.planner.desired import DesiredState
from services.rollouts.planner.steps import Step


class Strategy(Protocol):
    """A strategy. A module of `strategies/` with this function is one."""

    def plan(self, desired: DesiredState, classification: Classification, now: float) -> list[Step]:
        """Return the steps of one reconcile towards the desired state.

        The same steps keep a service in steady state, in which dead instances are the missing ones.
        """
        ...
