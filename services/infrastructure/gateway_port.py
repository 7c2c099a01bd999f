"""The gateway as the infrastructure uses it."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

from services.gateway.config.model import GatewaySettings
from services.gateway.runtime.takeover import OldGateway


class OldGatewaySocketsPort(Protocol):
    """Sockets of gateways that another container takes over from, by the container's id."""

    def begin(self, id: str) -> str: ...
    def undo(self, id: str) -> None: ...
    def has_successor(self, id: str) -> bool: ...
    def mark_draining(self, id: str) -> None: ...
    def cleanup(self, id: str) -> None: ...
    def old_gateways(self) -> list[OldGateway]: ...


class NewGateway(Protocol):
    """Another gateway that is to take over."""

    async def has_taken_over(self) -> bool:
        """Return whether the new gateway has taken over; True is final."""


class GatewayProcess(Protocol):
    """HAProxy behind its files and sockets."""

    @property
    def old_sockets(self) -> OldGatewaySocketsPort: ...

    async def configure(self, settings: GatewaySettings) -> None:
        """Write the first file and maps, unless the current ones fit the settings."""

    def drop_unbindable(self) -> list[str]:
        """Remove the services whose ports other processes use from the files, for a gateway that cannot start.

        Returns their names.
        """

    async def status(self) -> dict[str, Any] | None:
        """Return facts about the running process; None if it does not answer."""

    async def is_hung(self, timeout: float) -> bool:
        """Return True if the gateway accepts connections for `timeout` seconds and answers none."""

    async def wait_for_exit(self, within: float) -> bool:
        """Return True if the process ends, restarts or is absent; False after `within` seconds."""

    def takeover(self, id: str, settings: GatewaySettings) -> AbstractAsyncContextManager[NewGateway]:
        """Block other changes while another HAProxy takes over from the one in the container `id`."""
