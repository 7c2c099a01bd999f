"""Errors of routers that persist, because a deployment fails if a router fails it for too long."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from services.rollouts.reconciler.operations import PUBLICATION
from services.routing.port import RoutingError

ROUTER_ERROR_TIMEOUT = 30.0
"""Seconds for which a router may fail before the deployment that needs the router fails."""


@dataclass
class RouterErrors:
    """The errors of the routers in the operations of one service."""

    _failing: dict[str, tuple[float, str]] = field(default_factory=dict)
    """Operation key → since when a router has failed the operation, and the last error."""

    def record(self, key: str, now: float, error: RoutingError) -> None:
        """Record that a router failed an operation. A lasting error persists from the first time."""
        since, _ = self._failing.get(key, (now, ""))
        self._failing[key] = (now - ROUTER_ERROR_TIMEOUT if error.lasting else since, str(error))

    def clear(self, key: str) -> None:
        """Forget the error of an operation that succeeded, or that is not needed any more."""
        self._failing.pop(key, None)

    def clear_all(self) -> None:
        """Forget the errors of all operations, because the routers have done one of them."""
        self._failing.clear()

    def retain(self, instances: Collection[str]) -> None:
        """Forget the errors of all instances but these."""
        self._failing = {key: error for key, error in self._failing.items() if key == PUBLICATION or key in instances}

    def of_publication(self, now: float) -> str | None:
        """Return the error if the routers have failed to publish the service for too long, or None."""
        return self._persistent({PUBLICATION}, now)

    def of_instances(self, now: float) -> str | None:
        """Return the error if a router has failed an instance's operation for too long, or None."""
        return self._persistent(self._failing.keys() - {PUBLICATION}, now)

    def _persistent(self, keys: Collection[str], now: float) -> str | None:
        failing = sorted(self._failing[key] for key in keys if key in self._failing)
        return next((error for since, error in failing if now >= since + ROUTER_ERROR_TIMEOUT), None)
