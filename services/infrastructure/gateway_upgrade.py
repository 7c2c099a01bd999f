"""The gateway's upgrade: a new container takes over the listening sockets of the old one.

The old gateway finishes its requests and ends. If Sluice died during an upgrade, `resume_or_roll_back` finds the last step
from the containers, and completes or undoes the upgrade.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from dataclasses import dataclass

import structlog

from services.engine.infrastructure_port import Gateways, GatewaySpec, GatewayView, InfrastructureEngine
from services.engine.port import EngineError
from services.gateway.config.render import GatewaySettings
from services.infrastructure.gateway_port import GatewayProcess, NewGateway
from services.routing.port import RoutingError

log = structlog.get_logger(__name__)
_LOOK = 0.02
_SETTLES_WITHIN = 5.0
"""Seconds that a new gateway found in the middle of an upgrade may take to answer."""


class GatewayNotReady(RoutingError):
    """The new gateway did not answer; it has been removed, and the old one serves."""


@dataclass(frozen=True)
class UpgradeResult:
    """Ids of both containers, and the seconds for which the gateway could not be changed."""

    container_id: str
    previous_id: str
    seconds: float


class GatewayUpgrade:
    """Upgrade of the gateway; its methods must not run concurrently."""

    def __init__(self, engine: InfrastructureEngine, gateway: GatewayProcess, patience: float) -> None:
        self._engine = engine
        self._gateway = gateway
        self._patience = patience
        self.under_way = False

    async def run(self, present: GatewayView, spec: GatewaySpec, settings: GatewaySettings) -> UpgradeResult:
        """Upgrade the gateway as Infrastructure.upgrade describes."""
        self.under_way = True
        try:
            async with self._gateway.takeover(present.short_id, settings) as heir:
                began = time.monotonic()
                sockets = self._gateway.takeovers.begin(present.short_id)
                next = await self._until_it_answers(present, spec, sockets, heir)
                await self._engine.promote_next_gateway()
                await self._dismiss(present)
                seconds = time.monotonic() - began
        finally:
            self.under_way = False
        log.info("gateway_replaced", container=next.short_id, previous=present.short_id, seconds=round(seconds, 3))
        return UpgradeResult(next.container_id, present.container_id, seconds)

    async def resume_or_roll_back(self, spec: GatewaySpec) -> GatewayView | None:
        """Complete or undo an earlier upgrade, and remove gateways that have ended.

        Returns the present gateway; None if there is none.
        """
        there = await self._engine.inspect_gateways(spec)
        if there.successor is not None:
            await self._settle_next(there, there.successor)
            there = await self._engine.inspect_gateways(spec)
        told = {retained.id for retained in self._gateway.takeovers.old_gateways() if retained.leaving_for is not None}
        for elder in there.predecessors:
            if elder.running:
                if elder.short_id not in told:
                    await self._dismiss(elder)
            else:
                await self._engine.remove_gateway(elder.container_id)
                self._gateway.takeovers.cleanup(elder.short_id)
                log.info("gateway_left", container=elder.short_id, exit_code=elder.exit_code)
        there_yet = {elder.short_id for elder in there.predecessors}
        for retained in self._gateway.takeovers.old_gateways():
            if retained.id not in there_yet:
                self._gateway.takeovers.cleanup(retained.id)
        return there.present

    async def _until_it_answers(
        self, present: GatewayView, spec: GatewaySpec, sockets: str, heir: NewGateway
    ) -> GatewayView:
        """Start the new gateway and return it when it has taken over.

        Otherwise the new gateway is removed, and everything is as before.
        """
        try:
            next = await self._engine.start_next_gateway(spec, sockets)
            async with asyncio.timeout(self._patience):
                while not await heir.status():
                    seen = (await self._engine.inspect_gateways(spec)).successor
                    if seen is None or not seen.running:
                        raise GatewayNotReady(await self._with_log_tail("The new gateway ended at its start"))
                    await asyncio.sleep(_LOOK)
        except TimeoutError:
            words = await self._with_log_tail(f"The new gateway does not answer within {self._patience:g} s")
            await self._undo(present.short_id)
            raise GatewayNotReady(words) from None
        except EngineError as error:
            if not error.transient:  # an engine that does not answer could not undo the start either
                await self._undo(present.short_id)
            raise
        except GatewayNotReady:
            await self._undo(present.short_id)
            raise
        return next

    async def _settle_next(self, there: Gateways, next: GatewayView) -> None:
        """Promote the new gateway if it serves; remove it otherwise.

        A new gateway that serves has accepted connections. Any other never did, or has lost them.
        """
        heir_to = there.present.short_id if there.present is not None else None
        serves = False
        if next.running:
            with suppress(TimeoutError):
                async with asyncio.timeout(_SETTLES_WITHIN):
                    while not (serves := await self._took_over(heir_to)):  # noqa: ASYNC110 - no event reports it
                        await asyncio.sleep(_LOOK)
        if serves:
            log.warning("gateway_upgrade_resumed", container=next.short_id)
            await self._engine.promote_next_gateway()
        else:
            log.warning("gateway_upgrade_undone", container=next.short_id)
            await self._undo(heir_to)

    async def _took_over(self, heir_to: str | None) -> bool:
        if heir_to is not None and not self._gateway.takeovers.has_successor(heir_to):
            return False
        return await self._gateway.status() is not None

    async def _undo(self, present: str | None) -> None:
        await self._engine.remove_next_gateway()
        if present is not None:
            self._gateway.takeovers.undo(present)

    async def _dismiss(self, elder: GatewayView) -> None:
        await self._engine.drain_gateway(elder.container_id)
        self._gateway.takeovers.mark_draining(elder.short_id)

    async def _with_log_tail(self, sentence: str) -> str:
        written = (await self._engine.next_gateway_log()).strip()
        return f"{sentence}. Its last words:\n{written}" if written else f"{sentence}, and has written nothing"
