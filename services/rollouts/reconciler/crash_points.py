"""Named points between and inside steps, at which tests can kill Sluice (docs/why-crash-points.md)."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterable
from typing import get_args

from services.rollouts.planner.steps import Create, MarkDraining, Recall, Step
from services.rollouts.reconciler.result import ReconcileResult

WRITTEN = (Create, MarkDraining, Recall)
"""Steps that consist of a write: `before` lies in their transaction, `after` follows its commit."""
BETWEEN = tuple(f"{when}:{step.__name__}" for step in get_args(Step) for when in ("before", "after"))
"""`before`: the step is planned and committed, but not begun. `after`: the step is done and recorded."""
INSIDE = ("done:Start", "half:Admit", "done:ForceClose", "done:Stop", "half:Remove", "done:Remove")
"""`half`: the routers have done the step, the engine has not. `done`: both have, but without a record."""
LOOP = ("loop:beginning", "loop:begun", "loop:decided", "loop:published", "loop:unpublished", "loop:concluded")
"""Points of a reconcile.

`beginning`, `begun`: a deployment is about to be activated, or has been. `decided`: the result of a reconcile is committed.
`published`, `unpublished`: the routers know the service, or do not know it any more. `concluded`: an outcome is committed.
"""
START = ("start:restoring", "start:restored")
"""Points of the recovery at start.

`restoring`: the restarts that were found are recorded, but the routers are not restored yet. `restored`: the routers are
restored, but nothing is observed yet.
"""
POINTS = (*BETWEEN, *INSIDE, *LOOP, *START)


def kill_process() -> None:
    """Kill this process without any cleanup, as the kernel does when memory runs out."""
    os.kill(os.getpid(), signal.SIGKILL)


class CrashPoints:
    """The check that the controller makes at every point: kill the process at the configured one."""

    def __init__(self, at: str = "", die: Callable[[], None] = kill_process) -> None:
        """Configure the point `at` which to die.

        `at` is one of POINTS, or, for one service only, a point such as `web/after:Admit`. If empty, the process never dies.

        Raises ValueError if the point is unknown.
        """
        self._service, _, self._point = at.rpartition("/")
        self._die = die
        if at and self._point not in POINTS:
            raise ValueError(f"unknown crash point: {self._point}; known: {', '.join(POINTS)}")

    def reached(self, point: str, service: str = "") -> None:
        """Die if `point` of this service is the configured one; called before the controller passes the point."""
        if point == self._point and self._service in ("", service):
            self._die()

    def step(self, when: str, step: Step, service: str) -> None:
        """Call `reached` for the point `when` of a step."""
        self.reached(f"{when}:{type(step).__name__}", service)

    def written(self, when: str, steps: Iterable[Step], service: str) -> None:
        """Call `reached` for the point `when` of each step that consists of a write."""
        for step in steps:
            if isinstance(step, WRITTEN):
                self.step(when, step, service)

    def committed(self, result: ReconcileResult, service: str) -> None:
        """Call `reached` for the points between the commit of a result and everything that follows from it."""
        self.written("after", result.steps, service)
        if result.steps:
            self.reached("loop:decided", service)
        if result.concluded:
            self.reached("loop:concluded", service)
