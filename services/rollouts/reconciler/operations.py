"""The operations that follow from a reconcile, as data.

Operations with the same key never run concurrently.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from services.rollouts.planner.steps import Admit, ForceClose, Remove, Step, Stop, Withdraw
from services.routing.port import RoutedService
from services.store.tables import Instance, Revision

PUBLICATION = "publication"
"""The key of the operations that publish or unpublish a service."""


@dataclass(frozen=True)
class Activate:
    """Pull the image of a pending deployment, and make the deployment progressing."""

    deployment: int

    @property
    def key(self) -> str:
        return f"deployment {self.deployment}"


@dataclass(frozen=True)
class Publish:
    """Give the routers the settings of the service.

    This precedes the admission of the service's instances.
    """

    routed: RoutedService
    key: ClassVar[str] = PUBLICATION


@dataclass(frozen=True)
class Unpublish:
    """Remove the service from the routers."""

    service: str
    key: ClassVar[str] = PUBLICATION


@dataclass(frozen=True)
class ExecuteStep:
    """Execute a step of the plan on one instance.

    The rows are those of the transaction that planned the step.
    """

    step: Step
    row: Instance
    revision: Revision
    deployment: int | None

    @property
    def key(self) -> str:
        return self.row.id


@dataclass(frozen=True)
class Reconnect:
    """Connect a draining instance that lost its address with that address again.

    Its requests in flight then end as they would have; no other request can reach it.
    """

    row: Instance

    @property
    def key(self) -> str:
        return self.row.id


@dataclass(frozen=True)
class FetchLogTail:
    """Fetch the log tail of a failed instance.

    The tail is recorded with the failure of the deployment, so nothing more is planned until the tail is there.
    """

    row: Instance
    revision: Revision

    @property
    def key(self) -> str:
        return f"log of {self.row.id}"


Operation = Activate | Publish | Unpublish | ExecuteStep | Reconnect | FetchLogTail


def is_routed(operation: Operation) -> bool:
    """Return whether the routers take part in the operation."""
    match operation:
        case Publish() | Unpublish():
            return True
        case ExecuteStep(step, row):
            return row.port is not None and isinstance(step, Admit | Withdraw | ForceClose | Stop | Remove)
        case _:
            return False
