"""Sockets of the gateways that another container takes over from.

HAProxy replaces `master.sock` by a socket of its own. A hard link made before still leads to the old gateway's socket. The
links have names of their own and are kept until their gateways have ended.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from services.gateway.config.model import RUN_DIRECTORY
from services.gateway.runtime.runtime_api import RuntimeApi
from services.routing.port import RoutingError

MASTER, ADMIN = "master.sock", "admin.sock"
_BEFORE, _DRAINING = "before-", "leaving-"
"""Prefixes of the sockets of a gateway before its drain and during its drain. Files of a running Sluice have them."""
MAX_SOCKET_NAME_LENGTH = len(f"{_DRAINING}{'0' * 12}.sock")
"""Characters of the longest socket name in the directory; Docker's short ids have twelve."""


@dataclass(frozen=True)
class OldGateway:
    """A gateway that another container took over from.

    `socket`: name of its master's socket in the directory. `draining_for`: seconds, at least, since the gateway was asked to
    drain; None if it has not been asked.
    """

    id: str
    socket: str
    draining_for: float | None


class OldGatewaySockets:
    """Sockets of old gateways in `directory`.

    All calls are idempotent; `id` is the old gateway's container.
    """

    def __init__(self, directory: Path, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._directory = directory
        self._monotonic = monotonic
        self._draining_since: dict[str, float] = {}
        """Container → monotonic time at which this process first saw that the gateway drains."""

    def begin(self, id: str) -> str:
        """Retain the present sockets under other names.

        Returns the path, inside a container, at which the listening sockets are handed over.
        """
        for name, retained in ((MASTER, f"{_BEFORE}{id}.sock"), (ADMIN, f"{_BEFORE}{id}.admin")):
            (self._directory / retained).unlink(missing_ok=True)
            os.link(self._directory / name, self._directory / retained)
        return f"{RUN_DIRECTORY}/{_BEFORE}{id}.admin"

    def undo(self, id: str) -> None:
        """Restore the sockets that the new gateway replaced, after the new gateway has ended."""
        for name, retained in ((MASTER, f"{_BEFORE}{id}.sock"), (ADMIN, f"{_BEFORE}{id}.admin")):
            with suppress(FileNotFoundError):
                (self._directory / retained).replace(self._directory / name)
                # A rename between two links to the same socket does nothing, and leaves both.
                (self._directory / retained).unlink(missing_ok=True)

    def has_successor(self, id: str) -> bool:
        """Return whether another gateway's socket has replaced that of the gateway `id`."""
        try:
            before = (self._directory / f"{_BEFORE}{id}.sock").stat()
            return (self._directory / MASTER).stat().st_ino != before.st_ino
        except FileNotFoundError:
            return False

    def mark_draining(self, id: str) -> None:
        """Record that the gateway has been asked to drain."""
        with suppress(FileNotFoundError):
            (self._directory / f"{_BEFORE}{id}.sock").replace(self._directory / f"{_DRAINING}{id}.sock")
        (self._directory / f"{_BEFORE}{id}.admin").unlink(missing_ok=True)

    def cleanup(self, id: str) -> None:
        """Remove the retained sockets of a gateway that has ended."""
        for retained in (f"{_BEFORE}{id}.sock", f"{_BEFORE}{id}.admin", f"{_DRAINING}{id}.sock"):
            (self._directory / retained).unlink(missing_ok=True)
        self._draining_since.pop(id, None)

    def old_gateways(self) -> list[OldGateway]:
        """Return the old gateways that may still have requests in flight."""
        gateways = []
        for path in sorted(self._directory.glob("*-*.sock")):
            if path.name.startswith(_DRAINING):
                id = path.name.removeprefix(_DRAINING).removesuffix(".sock")
                since = self._draining_since.setdefault(id, self._monotonic())
                gateways.append(OldGateway(id, path.name, self._monotonic() - since))
            elif path.name.startswith(_BEFORE):
                id = path.name.removeprefix(_BEFORE).removesuffix(".sock")
                if self.has_successor(id):
                    gateways.append(OldGateway(id, path.name, None))
        return gateways


class HaproxyNewGateway:
    """Another HAProxy that is to take over from the one in the container `id`."""

    def __init__(self, id: str, api: RuntimeApi, old_sockets: OldGatewaySockets, mark_loaded: Callable[[], None]) -> None:
        self._id = id
        self._api = api
        self._old_sockets = old_sockets
        self._mark_loaded = mark_loaded

    async def has_taken_over(self) -> bool:
        """Return whether the new gateway has taken over; True is final.

        The new gateway has taken over if it answers at the old gateway's socket and has a worker.
        """
        if not self._old_sockets.has_successor(self._id):
            return False
        try:
            await self._api.query("show info")
        except RoutingError:
            return False
        self._mark_loaded()
        return True
