"""Sluice itself as a container that outlives the command line's process.

The container is started, awaited, and removed with everything that it created.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx

from services.bounded_http import Answer, AnswerRefusedError, BoundedClient
from services.engine.docker.control_plane import ControlPlaneContainer, ControlPlaneSpec
from services.engine.port import EngineError

PATIENCE = 60.0
"""Seconds from the start until /readyz must report that all is well."""
FILES = (
    "sluice.db",
    "sluice.db-wal",
    "sluice.db-shm",
    "sluice.lock",
    "backups",
    "builds",
    "gateway",
    "token.key",
    "admin.token",
)
"""Files that Sluice keeps in its data directory. No other file there is ever removed."""
_LOOK = 0.1
_ANSWER_TIMEOUT = 5.0
_MAX_ANSWER = 256 * 1024
_GIVE_UP_AFTER = 2
"""Exits of Sluice's process after which the wait for it ends."""


@dataclass(frozen=True)
class Endpoints:
    """Addresses of Sluice and its gateway: `host` and `port` of the API, and the gateway's public port."""

    host: str
    port: int
    gateway_port: int

    @property
    def url(self) -> str:
        host = "127.0.0.1" if self.host in ("0.0.0.0", "::") else self.host  # noqa: S104 - compares
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"


class ControlPlane:
    """Container of one Sluice. `told` gets one short line for each thing that is awaited."""

    def __init__(
        self, engine: ControlPlaneContainer, spec: ControlPlaneSpec, doors: Endpoints, told: Callable[[str], None]
    ) -> None:
        self._engine = engine
        self._spec = spec
        self._doors = doors
        self._told = told
        self._http = BoundedClient(_MAX_ANSWER)

    async def up(self, patience: float = PATIENCE) -> None:
        """Start the container, or replace it if image or settings differ, and wait until it is ready.

        Raises EngineError with the reason if the container does not become ready.
        """
        there = await self._engine.see(self._spec)
        if there is None or not there.running:
            await self._refuse_taken_ports()
        if there is None or not there.running or not there.as_wanted:
            self._told(f"{'starting' if there is None else 'replacing'} {self._engine.name}")
            await self._engine.run(self._spec)
        await self._wait_until_ready(patience)

    async def down(self) -> list[str]:
        """Remove everything of this Sluice, including its services. Return what was removed, a line each."""
        return await self._engine.remove_all(self._spec.data, FILES, self._spec.image)

    async def _refuse_taken_ports(self) -> None:
        doors = self._doors
        if _taken(doors.host, doors.port):
            raise EngineError(f"Port {doors.port} of {doors.host} is taken; SLUICE_PORT chooses another one")
        if not await self._engine.gateway_runs() and _taken("0.0.0.0", doors.gateway_port):  # noqa: S104 - the public port
            raise EngineError(f"Port {doors.gateway_port} is taken; SLUICE_GATEWAY_PORT chooses another one")

    async def _wait_until_ready(self, patience: float) -> None:
        said = "nothing yet"
        before = await self._engine.see(self._spec)
        try:
            async with asyncio.timeout(patience):
                while True:
                    ready, said = await self._ask(said)
                    view = await self._engine.see(self._spec)
                    if view is None:
                        raise EngineError(f'The container "{self._engine.name}" went away while it was started')
                    if ready and view.running:
                        return
                    if before is not None and view.restarts >= before.restarts + _GIVE_UP_AFTER:
                        raise EngineError(await self._words(f'"{self._engine.name}" exits at every start'))
                    await asyncio.sleep(_LOOK)
        except TimeoutError:
            sentence = f"{self._doors.url}/readyz is not well after {patience:g} s; it says: {said}"
            raise EngineError(await self._words(sentence)) from None

    async def _ask(self, before: str) -> tuple[bool, str]:
        """Return whether all is well, and the answer of /readyz.

        If /readyz does not answer, the answer is `before`, the previous one.
        """
        try:
            answer = await self._http.ask("GET", f"{self._doors.url}/readyz", timeout=_ANSWER_TIMEOUT)
        except (TimeoutError, httpx.TransportError):
            return False, before
        except AnswerRefusedError as error:
            return False, str(error)
        return answer.status == 200, _reason(answer)

    async def _words(self, sentence: str) -> str:
        written = (await self._engine.log()).strip()
        return f"{sentence}\nThe end of its log:\n{written}" if written else sentence


def _reason(answer: Answer) -> str:
    """Return the parts that are not well, or the whole text if the document is not the expected one."""
    try:
        document: Any = answer.json()
    except AnswerRefusedError:
        return f"HTTP {answer.status}"
    detail = document.get("detail") if isinstance(document, dict) else None
    return str(detail or answer.body.decode(errors="replace"))


def _taken(host: str, port: int) -> bool:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            probe.listen(1)
        except OSError as error:
            return error.errno == errno.EADDRINUSE
    return False
