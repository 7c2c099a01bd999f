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

from services.bounded_http import AnswerRefusedError, BoundedClient, BoundedResponse
from services.engine.infrastructure_port import ControlPlaneEngine, ControlPlaneSpec
from services.engine.port import EngineError

READY_TIMEOUT = 60.0
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
_POLL_INTERVAL = 0.1
_ANSWER_TIMEOUT = 5.0
_MAX_ANSWER = 256 * 1024
_MAX_EXITS = 2
"""Exits of Sluice's process after which the wait for it ends."""


@dataclass(frozen=True)
class ListenAddresses:
    """Addresses of Sluice and its gateway: `host` and `port` of the API, and the gateway's public port."""

    host: str
    port: int
    gateway_port: int

    @property
    def url(self) -> str:
        host = "127.0.0.1" if self.host in ("0.0.0.0", "::") else self.host  # noqa: S104 - compares
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"


class ControlPlane:
    """Sluice as a container of the engine. `report` gets one short line before each thing that is awaited."""

    def __init__(
        self,
        engine: ControlPlaneEngine,
        spec: ControlPlaneSpec,
        addresses: ListenAddresses,
        report: Callable[[str], None],
    ) -> None:
        self._engine = engine
        self._spec = spec
        self._addresses = addresses
        self._report = report
        self._http = BoundedClient(_MAX_ANSWER)

    async def up(self, timeout: float = READY_TIMEOUT) -> None:
        """Start the container, or replace it if image or settings differ, and wait until it is ready.

        Raises EngineError with the reason if the container does not become ready.
        """
        present = await self._engine.inspect_control_plane(self._spec)
        if present is None or not present.running:
            await self._refuse_taken_ports()
        if present is None or not present.running or present.outdated:
            self._report(f"{'starting' if present is None else 'replacing'} {self._engine.name}")
            await self._engine.ensure_control_plane(self._spec)
        await self._wait_until_ready(timeout)

    async def down(self) -> list[str]:
        """Remove everything of this Sluice, including its services. Return what was removed, a line each."""
        return await self._engine.remove_all(self._spec.data, FILES, self._spec.image)

    async def _refuse_taken_ports(self) -> None:
        host, port, gateway_port = self._addresses.host, self._addresses.port, self._addresses.gateway_port
        if _is_taken(host, port):
            raise EngineError(f"Port {port} of {host} is in use; choose another SLUICE_PORT")
        if not await self._engine.gateway_runs() and _is_taken("0.0.0.0", gateway_port):  # noqa: S104 - the public port
            raise EngineError(f"Port {gateway_port} is in use; choose another SLUICE_GATEWAY_PORT")

    async def _wait_until_ready(self, timeout: float) -> None:
        answer = "nothing yet"
        before = await self._engine.inspect_control_plane(self._spec)
        try:
            async with asyncio.timeout(timeout):
                while True:
                    ready, answer = await self._check_readiness(answer)
                    view = await self._engine.inspect_control_plane(self._spec)
                    if view is None:
                        raise EngineError(f'The container "{self._engine.name}" disappeared during its start')
                    if ready and view.running:
                        return
                    if before is not None and view.restarts >= before.restarts + _MAX_EXITS:
                        raise EngineError(await self._with_log_tail(f'"{self._engine.name}" exits at every start'))
                    await asyncio.sleep(_POLL_INTERVAL)
        except TimeoutError:
            sentence = f"{self._addresses.url}/readyz is not ready after {timeout:g} s: {answer}"
            raise EngineError(await self._with_log_tail(sentence)) from None

    async def _check_readiness(self, previous: str) -> tuple[bool, str]:
        """Return whether Sluice is ready, and the answer of /readyz; if there is none, the `previous` answer."""
        try:
            answer = await self._http.ask("GET", f"{self._addresses.url}/readyz", timeout=_ANSWER_TIMEOUT)
        except (TimeoutError, httpx.TransportError):
            return False, previous
        except AnswerRefusedError as error:
            return False, str(error)
        return answer.status == 200, _reason(answer)

    async def _with_log_tail(self, sentence: str) -> str:
        log = (await self._engine.control_plane_log()).strip()
        return f"{sentence}\nEnd of its log:\n{log}" if log else sentence


def _reason(answer: BoundedResponse) -> str:
    """Return the parts that are not well, or the whole text if the document is not the expected one."""
    try:
        document: Any = answer.json()
    except AnswerRefusedError:
        return f"HTTP {answer.status}"
    detail = document.get("detail") if isinstance(document, dict) else None
    return str(detail or answer.body.decode(errors="replace"))


def _is_taken(host: str, port: int) -> bool:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            probe.listen(1)
        except OSError as error:
            return error.errno == errno.EADDRINUSE
    return False
