"""A gateway of which only the sockets are real: files in a directory, one for each container that has listened there."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from services.gateway.config.model import GatewaySettings
from services.gateway.runtime.takeover import ADMIN, MASTER, SocketTakeover
from tests.support.fakes.infrastructure import FakeContainer, FakeInfrastructureEngine


class FakeGatewayProcess:
    """Answers when it has been asked `deaf` times, as long as the container that listens runs."""

    def __init__(self, engine: FakeInfrastructureEngine, directory: Path, deaf: int = 0) -> None:
        self.engine = engine
        self.directory = directory
        self.deaf = deaf
        self.hung = False
        """Its process stands still, until it is started anew."""
        self.stood_on: list[GatewaySettings] = []
        self.takeovers = SocketTakeover(directory)
        engine.on_start = self.listen

    def listen(self, container: FakeContainer) -> None:
        """As HAProxy does: a new socket in the place of the one that is there. The file says whose it is."""
        self.hung = False
        for name in (MASTER, ADMIN):
            new = self.directory / f".{name}.new"
            new.write_text(container.id)
            new.replace(self.directory / name)

    @property
    def listens(self) -> str | None:
        """The container behind the master's socket."""
        path = self.directory / MASTER
        return path.read_text() if path.exists() else None

    async def configure(self, settings: GatewaySettings) -> None:
        self.engine.calls.append("stand_on")
        self.stood_on.append(settings)

    async def status(self) -> dict[str, Any] | None:
        self.engine.calls.append("answers")
        self.deaf -= 1
        running = [
            each.id for each in (self.engine.present, self.engine.next, *self.engine.leaving) if each and each.running
        ]
        well = self.deaf < 0 and not self.hung and self.listens in running
        return {"version": "3.0"} if well else None

    async def is_hung(self, patience: float) -> bool:
        return self.hung

    async def wait_for_exit(self, within: float) -> bool:
        return False

    @asynccontextmanager
    async def takeover(self, id: str, settings: GatewaySettings) -> AsyncIterator[FakeNewGateway]:
        self.stood_on.append(settings)
        yield FakeNewGateway(id, self)


class FakeNewGateway:
    def __init__(self, id: str, gateway: FakeGatewayProcess) -> None:
        self._id = id
        self._gateway = gateway

    async def status(self) -> bool:
        return self._gateway.takeovers.has_successor(self._id) and await self._gateway.status() is not None
