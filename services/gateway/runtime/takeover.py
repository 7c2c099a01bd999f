"""The sockets of gateways from which another container takes over, kept under a name of their own until they have left.

HAProxy puts a socket of its own in the place of `master.sock`; a hard link made before still leads to the one who had it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from services.gateway.config.model import INSIDE
from services.gateway.runtime.runtime_api import RuntimeApi
from services.routing.port import RoutingError

MASTER, ADMIN = "master.sock", "admin.sock"
_BEFORE, _LEAVING = "before-", "leaving-"
LONGEST_SOCKET = len(f"{_LEAVING}{'0' * 12}.sock")
"""Characters of the longest name of a socket in the directory: Docker's short ids have twelve."""


@dataclass(frozen=True)
class OldGateway:
    """A gateway that was taken over from. `socket`: its master's, a name in the directory. `leaving_for`: seconds since it
    was told to take nothing new, at least; None while it has not been told."""

    id: str
    socket: str
    leaving_for: float | None


class SocketTakeover:
    """All calls are idempotent; `id` is the elder's container."""

    def __init__(self, directory: Path, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._directory = directory
        self._monotonic = monotonic
        self._seen: dict[str, float] = {}

    def begin(self, id: str) -> str:
        """Keep the present sockets. Returns the path, inside a container, at which the listening ones are handed over."""
        for name, retained in ((MASTER, f"{_BEFORE}{id}.sock"), (ADMIN, f"{_BEFORE}{id}.admin")):
            (self._directory / retained).unlink(missing_ok=True)
            os.link(self._directory / name, self._directory / retained)
        return f"{INSIDE}/{_BEFORE}{id}.admin"

    def undo(self, id: str) -> None:
        """The successor has gone: what it put its own sockets in the place of is back."""
        for name, retained in ((MASTER, f"{_BEFORE}{id}.sock"), (ADMIN, f"{_BEFORE}{id}.admin")):
            with suppress(FileNotFoundError):
                (self._directory / retained).replace(self._directory / name)
                # A rename over a link to the same socket does nothing, and leaves both.
                (self._directory / retained).unlink(missing_ok=True)

    def has_successor(self, id: str) -> bool:
        """Another one's socket stands where its own was."""
        try:
            before = (self._directory / f"{_BEFORE}{id}.sock").stat()
            return (self._directory / MASTER).stat().st_ino != before.st_ino
        except FileNotFoundError:
            return False

    def mark_draining(self, id: str) -> None:
        """It has been told to take nothing new."""
        with suppress(FileNotFoundError):
            (self._directory / f"{_BEFORE}{id}.sock").replace(self._directory / f"{_LEAVING}{id}.sock")
        (self._directory / f"{_BEFORE}{id}.admin").unlink(missing_ok=True)

    def cleanup(self, id: str) -> None:
        """It has gone."""
        for retained in (f"{_BEFORE}{id}.sock", f"{_BEFORE}{id}.admin", f"{_LEAVING}{id}.sock"):
            (self._directory / retained).unlink(missing_ok=True)
        self._seen.pop(id, None)

    def old_gateways(self) -> list[OldGateway]:
        """Those that may still have requests in their hands."""
        found = []
        for path in sorted(self._directory.glob("*-*.sock")):
            if path.name.startswith(_LEAVING):
                id = path.name.removeprefix(_LEAVING).removesuffix(".sock")
                since = self._seen.setdefault(id, self._monotonic())
                found.append(OldGateway(id, path.name, self._monotonic() - since))
            elif path.name.startswith(_BEFORE):
                id = path.name.removeprefix(_BEFORE).removesuffix(".sock")
                if self.has_successor(id):
                    found.append(OldGateway(id, path.name, None))
        return found


class NewGateway:
    """Another HAProxy on its way to take over from the one in the container `id`."""

    def __init__(self, id: str, api: RuntimeApi, succession: SocketTakeover, has_read: Callable[[], None]) -> None:
        self._id = id
        self._api = api
        self._succession = succession
        self._has_read = has_read

    async def status(self) -> bool:
        """It has taken over: it answers where the elder did, and has a worker. True is final."""
        if not self._succession.has_successor(self._id):
            return False
        try:
            await self._api.query("show info")
        except RoutingError:
            return False
        self._has_read()
        return True
