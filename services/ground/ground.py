"""What Sluice stands on, made or adopted: the network, the gateway's first file, and its container that answers."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import structlog

from services.engine.port import EngineError, Footing, GatewaySpec, GroundEngine
from services.gateway.render import GatewaySettings
from services.routing.port import RoutingError

__all__ = ["Footing", "Ground", "GroundSettings", "StandingGateway"]

log = structlog.get_logger(__name__)

PATIENCE = 30.0
"""Seconds that the gateway may take until its first answer."""
_OTHER_FILES = 4_000
"""Open files of the gateway besides two for each connection."""
_LOOK = 0.05
_GIVE_UP_AFTER = 3
"""Starts of the gateway's container that fail while it is waited for."""


class StandingGateway(Protocol):
    """The gateway as the ground needs it."""

    async def stand_on(self, settings: GatewaySettings) -> None:
        """Write its first file and maps, unless those that are there will do."""

    async def answers(self) -> dict[str, Any] | None:
        """Facts about the process that runs; None when it does not answer."""


@dataclass(frozen=True)
class GroundSettings:
    """`data`: Sluice's directory, the same on the host. `subnet`: the operator's wish. Sizes in bytes."""

    data: Path
    gateway_image: str
    subnet: str | None = None
    gateway_port: int = 8080
    maxconn: int = 8000
    max_body: int = 100 * 1024**2
    trusted_proxies: tuple[str, ...] = ()
    log_all: bool = False


class Ground:
    """Brings about what must be there before any instance, and touches nothing that serves."""

    def __init__(
        self, engine: GroundEngine, gateway: StandingGateway, settings: GroundSettings, *, patience: float = PATIENCE
    ) -> None:
        self._engine = engine
        self._gateway = gateway
        self._settings = settings
        self._patience = patience

    async def prepare(self) -> Footing:
        """Idempotent. Returns when the gateway answers. Raises EngineError, RoutingError."""
        settings = self._settings
        footing = await self._engine.make_network(settings.subnet)
        await self._gateway.stand_on(
            GatewaySettings(
                public_port=settings.gateway_port,
                bridge_address=footing.bridge_address,
                maxconn=settings.maxconn,
                max_body=settings.max_body,
                trusted_proxies=settings.trusted_proxies,
                log_all=settings.log_all,
            )
        )
        spec = GatewaySpec(
            image=settings.gateway_image,
            directory=str(settings.data / "gateway"),
            open_files=2 * settings.maxconn + _OTHER_FILES,
        )
        made = await self._engine.make_gateway(spec)
        if made.outdated:
            log.warning("gateway_outdated", container=made.container_id[:12], wanted=spec.image)
        await self._wait_for_answer(made.restarts)
        return footing

    async def _wait_for_answer(self, restarts: int) -> None:
        try:
            async with asyncio.timeout(self._patience):
                while await self._gateway.answers() is None:
                    await self._refuse_when_failing(restarts)
                    await asyncio.sleep(_LOOK)
        except TimeoutError:
            raise RoutingError(await self._told(f"The gateway does not answer within {self._patience:g} s")) from None

    async def _refuse_when_failing(self, restarts: int) -> None:
        """No need to wait for one that starts, fails and starts again."""
        gateway = await self._engine.see_gateway()
        if gateway is None:
            raise EngineError("The gateway's container went away while it was started", transient=True)
        if gateway.restarts >= restarts + _GIVE_UP_AFTER:
            raise RoutingError(await self._told("The gateway exits at every start"))

    async def _told(self, sentence: str) -> str:
        written = (await self._engine.gateway_log()).strip()
        return f"{sentence}. Its last words:\n{written}" if written else f"{sentence}, and has written nothing"
