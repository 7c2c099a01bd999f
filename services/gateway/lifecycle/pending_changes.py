"""Changes that wait for the gateway's next reload."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field

from services.routing.port import RoutedService, RoutingError


@dataclass
class PendingChange:
    """A change that waits for the next reload.

    `service` is None if the desired configuration is to be loaded as it is.
    """

    service: RoutedService | None
    done: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    def complete(self, error: RoutingError | None = None) -> None:
        """Report the end to the callers that wait for `done`."""
        if self.done.done():
            return
        if error is None:
            self.done.set_result(None)
        else:
            self.done.set_exception(error)
            self.done.exception()  # no log entry for an error whose callers were cancelled


def complete_all(changes: Iterable[PendingChange], error: RoutingError | None = None) -> None:
    """Report the same end of all these changes."""
    for change in changes:
        change.complete(error)
