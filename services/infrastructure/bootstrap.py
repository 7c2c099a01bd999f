"""What Sluice stands on, made or adopted: the network, the gateway's first file, and its container that answers."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog

from services.engine.infrastructure_port import GatewaySpec, GatewayView, InfrastructureEngine, NetworkInfo
from services.engine.port import EngineError
from services.gateway.config.render import GatewaySettings
from services.infrastructure.doctor import Doctor
from services.infrastructure.doctor_findings import Finding
from services.infrastructure.gateway_port import GatewayProcess
from services.infrastructure.gateway_upgrade import GatewayUpgrade, UpgradeResult
from services.routing.port import RoutingError

__all__ = ["GatewayProcess", "Infrastructure", "InfrastructureSettings", "NetworkInfo"]

log = structlog.get_logger(__name__)

PATIENCE = 30.0
"""Seconds that the gateway may take until its first answer."""
HUNG = 10.0
"""Seconds for which a gateway that runs may take connections and answer nobody: then it is started anew."""
_OTHER_FILES = 4_000
"""Open files of the gateway besides two for each connection."""
_LOOK = 0.05
_GIVE_UP_AFTER = 3
"""Starts of the gateway's container that fail while it is waited for."""
_SEEN_TO = 2.0
"""Seconds after which the gateway is asked whether it answers, although nothing has told that it does not."""


@dataclass(frozen=True)
class InfrastructureSettings:
    """`data`: Sluice's directory, the same on the host. `subnet`: the operator's wish. Sizes in bytes."""

    data: Path
    gateway_image: str
    subnet: str | None = None
    gateway_port: int = 8080
    maxconn: int = 8000
    max_body: int = 100 * 1024**2
    trusted_proxies: tuple[str, ...] = ()
    log_all: bool = False


class Infrastructure:
    """Brings about what must be there before any instance, and touches nothing that serves."""

    def __init__(
        self,
        engine: InfrastructureEngine,
        gateway: GatewayProcess,
        settings: InfrastructureSettings,
        *,
        doctor: Doctor | None = None,
        patience: float = PATIENCE,
    ) -> None:
        self._engine = engine
        self._gateway = gateway
        self._settings = settings
        self._doctor = doctor
        self._patience = patience
        self._succession = GatewayUpgrade(engine, gateway, patience)
        self._one_at_a_time = asyncio.Lock()
        self.outdated: str | None = None
        """Why the gateway is not as it would be made today; None when it is."""

    @property
    def spec(self) -> GatewaySpec:
        """As the gateway's container would be made today."""
        return GatewaySpec(
            image=self._settings.gateway_image,
            directory=str(self._settings.data / "gateway"),
            open_files=2 * self._settings.maxconn + _OTHER_FILES,
        )

    async def ensure(self) -> NetworkInfo:
        """Idempotent. Returns when the gateway answers. Raises EngineError, RoutingError."""
        async with self._one_at_a_time:
            network = await self._engine.ensure_network(self._settings.subnet)
            there = await self._succession.resume_or_roll_back(self.spec)
            await self._gateway.configure(self._wanted(network, there))
            if there is not None and there.running and await self._gateway.is_hung(HUNG):
                log.warning("gateway_hangs", container=there.short_id)
                await self._engine.restart_gateway()
            made = await self._engine.ensure_gateway(self.spec)
            self._note(made)
            await self._wait_for_answer(made.restarts)
            return network

    async def wait_until_degraded(self) -> None:
        """Returns when `ensure` has something to do: the gateway does not answer, or one that was replaced has ended."""
        while True:
            gone = await self._gateway.wait_for_exit(_SEEN_TO)
            async with self._one_at_a_time:
                if not await self._is_up(gone):
                    log.warning("gateway_gone")
                    return
                if self._gateway.takeovers.old_gateways():
                    await self._succession.resume_or_roll_back(self.spec)
            await asyncio.sleep(_LOOK)

    async def diagnose(self, strangers: Sequence[str], not_ready: Mapping[str, str]) -> list[Finding]:
        """How all that Sluice stands on fares; `strangers` and `not_ready` are what the loop knows."""
        if self._doctor is None:
            return []
        return await self._doctor.diagnose(outdated=self.outdated, strangers=strangers, not_ready=not_ready)

    @property
    def upgrading(self) -> bool:
        """One is under way."""
        return self._succession.under_way

    async def upgrade(self, *, force: bool = False) -> UpgradeResult | None:
        """The gateway replaced by one as it would be made today, without a loss: None when it is so already, unless `force`.

        GatewayUnanswering when the new one does not come to answer: it has gone again, and the old one serves. EngineError,
        RoutingError: what was begun is ended, or undone, by the next `ensure`.
        """
        async with self._one_at_a_time:
            network = await self._engine.ensure_network(self._settings.subnet)
            there = await self._succession.resume_or_roll_back(self.spec)
            if there is None or not there.running:
                raise RoutingError("There is no gateway that runs; it is being started")
            self._note(there)
            if not there.outdated and not force:
                return None
            replaced = await self._succession.run(there, self.spec, self._wanted(network, None))
            self.outdated = None
            return replaced

    async def _is_up(self, gone: bool) -> bool:
        """Whether the gateway answers. When its process is `gone`, the engine may say before that it will not come back."""
        answer = asyncio.create_task(self._gateway.status())
        try:
            while gone and not answer.done():
                view = await self._engine.inspect_gateway()
                if view is None or not (view.running or view.restarting):
                    return False
                await asyncio.wait([answer], timeout=_LOOK)
            return await answer is not None
        finally:
            answer.cancel()
            await asyncio.gather(answer, return_exceptions=True)

    def _wanted(self, network: NetworkInfo, there: GatewayView | None) -> GatewaySettings:
        """With no more connections than the container that runs allows: more come with the upgrade."""
        settings, most = self._settings, self._settings.maxconn
        if there is not None and there.running and there.open_files is not None:
            most = min(most, max((there.open_files - _OTHER_FILES) // 2, 100))
        return GatewaySettings(
            public_port=settings.gateway_port,
            bridge_address=network.bridge_address,
            subnet=network.subnet,
            maxconn=most,
            max_body=settings.max_body,
            trusted_proxies=settings.trusted_proxies,
            log_all=settings.log_all,
        )

    def _note(self, view: GatewayView) -> None:
        before, self.outdated = self.outdated, None
        if view.outdated:
            wanted = self.spec
            changed = f"{wanted.image} is another image now, or a gateway's container is made in another way"
            image = changed if view.image == wanted.image else f"{wanted.image} is wanted"
            fewer = view.open_files is not None and view.open_files != wanted.open_files
            self.outdated = (
                f"it may open {view.open_files} files, {wanted.open_files} are wanted"
                if fewer
                else f"it was made from {view.image}, and {image}"
            )
        if self.outdated and not before:
            log.warning("gateway_outdated", container=view.short_id, why=self.outdated)

    async def _wait_for_answer(self, restarts: int) -> None:
        try:
            async with asyncio.timeout(self._patience):
                while await self._gateway.status() is None:
                    await self._refuse_when_failing(restarts)
                    await asyncio.sleep(_LOOK)
        except TimeoutError:
            raise RoutingError(await self._told(f"The gateway does not answer within {self._patience:g} s")) from None

    async def _refuse_when_failing(self, restarts: int) -> None:
        """No need to wait for one that starts, fails and starts again."""
        gateway = await self._engine.inspect_gateway()
        if gateway is None:
            raise EngineError("The gateway's container went away while it was started", transient=True)
        if gateway.restarts >= restarts + _GIVE_UP_AFTER:
            raise RoutingError(await self._told("The gateway exits at every start"))

    async def _told(self, sentence: str) -> str:
        written = (await self._engine.gateway_log()).strip()
        return f"{sentence}. Its last words:\n{written}" if written else f"{sentence}, and has written nothing"
