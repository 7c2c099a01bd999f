"""Sluice's infrastructure, created or adopted: network, gateway files and gateway container.

The infrastructure is ready when the gateway answers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import structlog

from services.engine.infrastructure_port import GatewaySpec, GatewayView, InfrastructureEngine, NetworkInfo
from services.engine.port import EngineError
from services.gateway.config.model import GatewaySettings
from services.infrastructure.doctor import Doctor
from services.infrastructure.doctor_findings import DoctorFinding
from services.infrastructure.gateway_port import GatewayProcess
from services.infrastructure.gateway_upgrade import GatewayUpgrader, UpgradeResult
from services.routing.port import RoutingError

__all__ = ["GatewayProcess", "Infrastructure", "InfrastructureSettings", "NetworkInfo"]

log = structlog.get_logger(__name__)

Part = Literal["network", "gateway"]

ANSWER_TIMEOUT = 30.0
"""Seconds that the gateway may take until its first answer."""
HUNG_AFTER = 10.0
"""Seconds that a running gateway may accept connections and answer none before it is restarted."""
_RESERVED_OPEN_FILES = 4_000
"""Open files of the gateway besides two for each connection."""
_POLL_INTERVAL = 0.05
_MAX_FAILED_STARTS = 3
"""Failed starts of the gateway's container after which it is not waited for without a change."""
_CHECK_INTERVAL = 2.0
"""Seconds between two checks whether the gateway answers and the network exists, if no event comes before."""


@dataclass(frozen=True)
class InfrastructureSettings:
    """Settings of the infrastructure.

    `data` is Sluice's directory, at the same path on the host. `subnet` is the operator's choice. Sizes are in bytes.
    """

    data: Path
    gateway_image: str
    subnet: str | None = None
    gateway_port: int = 8080
    maxconn: int = 8000
    max_body: int = 100 * 1024**2
    trusted_proxies: tuple[str, ...] = ()
    log_all: bool = False


class Infrastructure:
    """Network and gateway, which must exist before any instance. Nothing that serves is disturbed."""

    def __init__(
        self,
        engine: InfrastructureEngine,
        gateway: GatewayProcess,
        settings: InfrastructureSettings,
        *,
        doctor: Doctor | None = None,
        timeout: float = ANSWER_TIMEOUT,
    ) -> None:
        self._engine = engine
        self._gateway = gateway
        self._settings = settings
        self._doctor = doctor
        self._timeout = timeout
        self._gateway_upgrade = GatewayUpgrader(engine, gateway, timeout)
        self._lock = asyncio.Lock()
        self._network: NetworkInfo | None = None
        self.outdated: str | None = None
        """Reason that the gateway differs from one that would be created now; None if it does not."""

    @property
    def spec(self) -> GatewaySpec:
        """Spec by which the gateway's container would be created now."""
        return GatewaySpec(
            image=self._settings.gateway_image,
            directory=str(self._settings.data / "gateway"),
            open_files=2 * self._settings.maxconn + _RESERVED_OPEN_FILES,
        )

    async def ensure(self) -> NetworkInfo:
        """Create, adopt or repair the infrastructure; return when the gateway answers.

        Idempotent. Raises EngineError and RoutingError.
        """
        async with self._lock:
            network = await self._ensure_network()
            present = await self._gateway_upgrade.resume_or_roll_back(self.spec)
            await self._gateway.configure(self._gateway_settings(network, present))
            if present is not None and present.running and await self._gateway.is_hung(HUNG_AFTER):
                log.warning("gateway_hangs", container=present.short_id)
                await self._engine.restart_gateway()
            gateway = await self._engine.ensure_gateway(self.spec)
            self._record_outdated(gateway)
            await self._wait_for_answer(gateway.restarts)
            return network

    async def check_network(self) -> Mapping[str, Any]:
        """Return the network's facts for /readyz; raise EngineError if it is missing or not Sluice's."""
        if await self._engine.inspect_network() is None:
            raise EngineError("the instances' network is missing; Sluice creates it within seconds")
        return {}

    async def wait_until_degraded(self) -> Part:
        """Return the part that is missing or does not answer, once `ensure` has work to do.

        Until then, replaced gateways that have ended are removed.
        """
        while True:
            exited = await self._gateway.wait_for_exit(_CHECK_INTERVAL)
            async with self._lock:
                if not await self._is_up(exited):
                    log.warning("gateway_gone")
                    return "gateway"
                if await self._network_is_missing():
                    log.warning("network_gone")
                    return "network"
                if self._gateway.old_sockets.old_gateways():
                    await self._gateway_upgrade.resume_or_roll_back(self.spec)
            await asyncio.sleep(_POLL_INTERVAL)

    async def diagnose(self, unknown_containers: Sequence[str], not_ready: Mapping[str, str]) -> list[DoctorFinding]:
        """Return the doctor's findings on everything that Sluice depends on.

        The controller supplies `unknown_containers` and `not_ready`.
        """
        if self._doctor is None:
            return []
        return await self._doctor.diagnose(
            outdated=self.outdated, unknown_containers=unknown_containers, not_ready=not_ready
        )

    @property
    def upgrading(self) -> bool:
        """Whether an upgrade is in progress."""
        return self._gateway_upgrade.in_progress

    async def upgrade(self, *, force: bool = False) -> UpgradeResult | None:
        """Replace the gateway, without a loss, by one that is created now.

        Returns None if the gateway is up to date, unless `force`. Raises GatewayNotReady if the new gateway does not answer:
        it has been removed, and the old one serves. Raises EngineError or RoutingError otherwise: the next `ensure`
        completes or undoes the upgrade.
        """
        async with self._lock:
            network = await self._ensure_network()
            present = await self._gateway_upgrade.resume_or_roll_back(self.spec)
            if present is None or not present.running:
                raise RoutingError("No gateway is running; starting it")
            self._record_outdated(present)
            if not present.outdated and not force:
                return None
            replaced = await self._gateway_upgrade.run(present, self.spec, self._gateway_settings(network, None))
            self.outdated = None
            return replaced

    async def _ensure_network(self) -> NetworkInfo:
        previous = self._network.subnet if self._network is not None else None
        self._network = await self._engine.ensure_network(self._settings.subnet, previous)
        return self._network

    async def _network_is_missing(self) -> bool:
        """Return whether the network is missing or replaced; False if the engine does not answer."""
        try:
            return await self._engine.inspect_network() is None
        except EngineError as error:
            return not error.transient

    async def _is_up(self, exited: bool) -> bool:
        """Return whether the gateway answers.

        If its process has `exited`, the engine may say first that the process will not come back.
        """
        answer = asyncio.create_task(self._gateway.status())
        try:
            while exited and not answer.done():
                view = await self._engine.inspect_gateway()
                if view is None or not (view.running or view.restarting):
                    return False
                await asyncio.wait([answer], timeout=_POLL_INTERVAL)
            return await answer is not None
        finally:
            answer.cancel()
            await asyncio.gather(answer, return_exceptions=True)

    def _gateway_settings(self, network: NetworkInfo, present: GatewayView | None) -> GatewaySettings:
        """Return the gateway's settings, with no more connections than the running container allows.

        More connections come with the upgrade.
        """
        settings, maxconn = self._settings, self._settings.maxconn
        if present is not None and present.running and present.open_files is not None:
            maxconn = min(maxconn, max((present.open_files - _RESERVED_OPEN_FILES) // 2, 100))
        return GatewaySettings(
            public_port=settings.gateway_port,
            bridge_address=network.bridge_address,
            subnet=network.subnet,
            maxconn=maxconn,
            max_body=settings.max_body,
            trusted_proxies=settings.trusted_proxies,
            log_all=settings.log_all,
        )

    def _record_outdated(self, view: GatewayView) -> None:
        previous, self.outdated = self.outdated, None
        if view.outdated:
            spec = self.spec
            changed = f"{spec.image} is a different image now, or the container's settings changed"
            image = changed if view.image == spec.image else f"{spec.image} is expected"
            fewer = view.open_files is not None and view.open_files != spec.open_files
            self.outdated = (
                f"it may open {view.open_files} files, expected {spec.open_files}"
                if fewer
                else f"it runs {view.image}, but {image}"
            )
        if self.outdated and not previous:
            log.warning("gateway_outdated", container=view.short_id, why=self.outdated)

    async def _wait_for_answer(self, restarts: int) -> None:
        try:
            async with asyncio.timeout(self._timeout):
                while await self._gateway.status() is None:
                    restarts = await self._handle_failed_starts(restarts)
                    await asyncio.sleep(_POLL_INTERVAL)
        except TimeoutError:
            sentence = f"The gateway does not answer within {self._timeout:g} s"
            raise RoutingError(await self._with_log_tail(sentence)) from None

    async def _handle_failed_starts(self, restarts: int) -> int:
        """Drop services whose ports are in use if the gateway starts, fails and starts again.

        Returns the number of restarts from which failed starts are counted. Raises RoutingError if there is no such service,
        because waiting does not help then.
        """
        gateway = await self._engine.inspect_gateway()
        if gateway is None:
            raise EngineError("The gateway's container disappeared during its start", transient=True)
        if gateway.restarts < restarts + _MAX_FAILED_STARTS:
            return restarts
        dropped = self._gateway.drop_unbindable()
        if not dropped:
            raise RoutingError(await self._with_log_tail("The gateway exits at every start"))
        log.warning("gateway_without_services", services=dropped, reason="another process uses their ports")
        return gateway.restarts

    async def _with_log_tail(self, message: str) -> str:
        log_tail = (await self._engine.gateway_log()).strip()
        return f"{message}. Its last log lines:\n{log_tail}" if log_tail else f"{message}, and it logged nothing"
