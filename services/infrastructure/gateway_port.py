"""The gateway as the ground needs it."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

from services.gateway.config.render import GatewaySettings
from services.gateway.runtime.takeover import OldGateway


class OldGateways(Protocol):
    """The sockets of gateways that another container takes over from, by the container's id."""

    def begin(self, id: str) -> str: ...
    def undo(self, id: str) -> None: ...
    def has_successor(self, id: str) -> bool: ...
    def mark_draining(self, id: str) -> None: ...
    def cleanup(self, id: str) -> None: ...
    def old_gateways(self) -> list[OldGateway]: ...


class NewGateway(Protocol):
    """Another one that is to take over."""

    async def status(self) -> bool:
        """True, for good, once it has."""


class GatewayProcess(Protocol):
    """HAProxy behind its files and sockets."""

    @property
    def takeovers(self) -> OldGateways: ...

    async def configure(self, settings: GatewaySettings) -> None:
        """Write its first file and maps, unless those that are there will do."""

    async def status(self) -> dict[str, Any] | None:
        """Facts about the process that runs; None when it does not answer."""

    async def is_hung(self, patience: float) -> bool:
        """True when it has taken connections for so many seconds and has answered nobody."""

    async def wait_for_exit(self, within: float) -> bool:
        """True when its process ends or begins anew, or is not there; False after so many seconds."""

    def takeover(self, id: str, settings: GatewaySettings) -> AbstractAsyncContextManager[NewGateway]:
        """Nothing else is changed while another HAProxy takes over from the one in the container `id`."""
