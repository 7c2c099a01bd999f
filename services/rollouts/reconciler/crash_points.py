"""Every boundary between two steps by name, so that tests can make Sluice die at each of them (docs/why-crash-points.md)."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterable
from typing import get_args

from services.rollouts.planner.steps import Create, Drain, Recall, Step

WRITTEN = (Create, Drain, Recall)
"""Steps that are done by being written: `before` is in their transaction, `after` when it is committed."""
BETWEEN = tuple(f"{when}:{step.__name__}" for step in get_args(Step) for when in ("before", "after"))
"""`before`: decided and written down, and nothing of it is done. `after`: all of it is done and written."""
INSIDE = ("done:Start", "half:Admit", "done:Cut", "done:Stop", "half:Remove", "done:Remove")
"""`half`: the routers have done it and the engine has not. `done`: both have, and nobody has written that."""
LOOP = ("loop:beginning", "loop:begun", "loop:decided", "loop:published", "loop:unpublished", "loop:concluded")
"""A deployment is about to begin, has begun; a turn's decision is written; the routers know, or have forgotten, the service;
a verdict is written."""
START = ("start:restoring", "start:restored")
"""What came back is written and the routers have yet to be told; they are told and nothing has been looked at."""
POINTS = (*BETWEEN, *INSIDE, *LOOP, *START)


def kill_process() -> None:
    """As the kernel does when memory runs out: nothing is tidied up."""
    os.kill(os.getpid(), signal.SIGKILL)


class CrashPoints:
    """Told by the loop wherever it is; dies at one of the points, if it was told to."""

    def __init__(self, at: str = "", die: Callable[[], None] = kill_process) -> None:
        """`at`: one of POINTS, or `web/after:Admit` for one service's alone; empty: live for ever. ValueError."""
        self._service, _, self._point = at.rpartition("/")
        self._die = die
        if at and self._point not in POINTS:
            raise ValueError(f"there is no such point: {self._point}; known are {', '.join(POINTS)}")

    def reached(self, point: str, service: str = "") -> None:
        """It is about to go past `point`, in the life of this service."""
        if point == self._point and self._service in ("", service):
            self._die()

    def step(self, when: str, step: Step, service: str) -> None:
        """The same for a moment of a step."""
        self.reached(f"{when}:{type(step).__name__}", service)

    def written(self, when: str, steps: Iterable[Step], service: str) -> None:
        """The same for those of a plan's steps that are done by being written."""
        for step in steps:
            if isinstance(step, WRITTEN):
                self.step(when, step, service)
