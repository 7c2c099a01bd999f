"""Fake gateway process with real socket files in a directory, each owned by one container."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from services.gateway.config.model import GatewaySettings
from services.gateway.runtime.takeover import ADMIN, MASTER, OldGatewaySockets
from tests.support.fakes.infrastructure import FakeContainer, FakeInfrastructureEngine


class FakeGatewayProcess:
    """Gateway that answers after `unanswered` requests, if the listening container runs."""

    def __init__(self, engine: FakeInfrastructureEngine, directory: Path, unanswered: int = 0) -> None:
        self.engine = engine
        self.directory = directory
        self.unanswered = unanswered
        self.hung = False
        """The process hangs until it is started again."""
        self.configured: list[GatewaySettings] = []
        self.unbindable: list[str] = []
        """Services whose ports another process uses, so that no gateway starts."""
        self.old_sockets = OldGatewaySockets(directory)
        engine.on_start = self.listen

    def listen(self, container: FakeContainer) -> None:
        """Replace the socket files as HAProxy does; each contains the id of the listening container."""
        self.hung = False
        for name in (MASTER, ADMIN):
            new = self.directory / f".{name}.new"
            new.write_text(container.id)
            new.replace(self.directory / name)

    @property
    def listener(self) -> str | None:
        """Return the id of the container that listens on the master socket."""
        path = self.directory / MASTER
        return path.read_text() if path.exists() else None

    async def configure(self, settings: GatewaySettings) -> None:
        self.engine.calls.append("configure")
        self.configured.append(settings)

    async def status(self) -> dict[str, Any] | None:
        self.engine.calls.append("status")
        self.unanswered -= 1
        running = [
            each.id for each in (self.engine.present, self.engine.next, *self.engine.predecessors) if each and each.running
        ]
        well = self.unanswered < 0 and not self.hung and self.listener in running
        return {"version": "3.0"} if well else None

    def drop_unbindable(self) -> list[str]:
        dropped, self.unbindable = self.unbindable, []
        if dropped:
            self.engine.failing, self.unanswered = False, 0
        return dropped

    async def is_hung(self, timeout: float) -> bool:
        return self.hung

    async def wait_for_exit(self, within: float) -> bool:
        return False

    @asynccontextmanager
    async def takeover(self, id: str, settings: GatewaySettings) -> AsyncIterator[FakeNewGateway]:
        self.configured.append(settings)
        yield FakeNewGateway(id, self)


class FakeNewGateway:
    def __init__(self, id: str, gateway: FakeGatewayProcess) -> None:
        self._id = id
        self._gateway = gateway

    async def has_taken_over(self) -> bool:
        return self._gateway.old_sockets.has_successor(self._id) and await self._gateway.status() is not None
