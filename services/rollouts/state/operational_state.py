"""The state of a service: one word from its instances, its deployments and its crashes."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from services.rollouts.state.status import Status


class OperationalState(StrEnum):
    """The states of a service, in order of precedence: the first that holds is the service's state."""

    DOWN = "down"
    UNHEALTHY = "unhealthy"
    CRASH_LOOPING = "crash_looping"
    PAUSED = "paused"
    DEPLOYMENT_FAILED = "deployment_failed"
    DEPLOYING = "deploying"
    SERVING = "serving"
    STOPPED = "stopped"


PROBLEMS = tuple(OperationalState)[:5]
"""States that need the attention of a person."""
IN_PROGRESS = frozenset({Status.PROGRESSING, Status.PAUSED, Status.ROLLING_BACK})
UNFINISHED = IN_PROGRESS | {Status.PENDING}
FAILURES = frozenset({Status.FAILED, Status.ROLLED_BACK, Status.ROLLBACK_FAILED})
RESULTS = FAILURES | {Status.SUCCEEDED}
"""Statuses of an ended deployment that tell whether it worked; an aborted or superseded one does not tell."""


@dataclass(frozen=True)
class ServiceFacts:
    """Values that determine the state of a service.

    `desired` is 0 before the first revision and after the removal. `serving` and `unhealthy` count instances that are
    not leaving. `unfinished` has the statuses of the deployments that have not ended. `last_result` is the newest
    status of RESULTS, if any.
    """

    desired: int
    serving: int = 0
    unhealthy: int = 0
    unfinished: frozenset[str] = frozenset()
    last_result: str | None = None
    crash_looping: bool = False


def service_state(facts: ServiceFacts) -> OperationalState:
    """Return the first state that holds.

    Too few serving instances are explained by a deployment in progress, unless one of the instances is unhealthy. A
    failed deployment no longer determines the state once another deployment has not ended or has succeeded.
    """
    holds = {
        OperationalState.DOWN: facts.desired > 0 and facts.serving == 0,
        OperationalState.UNHEALTHY: 0 < facts.serving < facts.desired
        and (facts.unhealthy > 0 or not facts.unfinished & IN_PROGRESS),
        OperationalState.CRASH_LOOPING: facts.desired > 0 and facts.crash_looping,
        OperationalState.PAUSED: Status.PAUSED in facts.unfinished,
        OperationalState.DEPLOYMENT_FAILED: facts.last_result in FAILURES and not facts.unfinished,
        OperationalState.DEPLOYING: bool(facts.unfinished),
        OperationalState.SERVING: facts.serving > 0,
    }
    return next((state for state, value in holds.items() if value), OperationalState.STOPPED)
