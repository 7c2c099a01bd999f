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

from services.engine.infrastructure_port import GatewaySpec, GatewayView, InfrastructureEngine
from services.engine.port import EngineError
from services.gateway.config.model import GatewaySettings
from services.infrastructure.gateway_port import GatewayProcess, NewGateway
from services.routing.port import RoutingError

log = structlog.get_logger(__name__)
_POLL_INTERVAL = 0.02
"""Seconds between two checks whether the new gateway has taken over."""
_RESUME_TIMEOUT = 5.0
"""Seconds that a new gateway found in the middle of an upgrade may take to answer."""


class GatewayNotReady(RoutingError):
    """The new gateway did not answer; it has been removed, and the old one serves."""


@dataclass(frozen=True)
class UpgradeResult:
    """Ids of both containers, and the seconds for which the gateway could not be changed."""

    container_id: str
    previous_id: str
    seconds: float


class GatewayUpgrader:
    """Upgrade of the gateway; its methods must not run concurrently.

    `start_timeout`: seconds until a new gateway without an answer counts as failed.
    """

    def __init__(self, engine: InfrastructureEngine, gateway: GatewayProcess, start_timeout: float) -> None:
        self._engine = engine
        self._gateway = gateway
        self._start_timeout = start_timeout
        self.in_progress = False

    async def run(self, present: GatewayView, spec: GatewaySpec, settings: GatewaySettings) -> UpgradeResult:
        """Upgrade the gateway as Infrastructure.upgrade describes."""
        self.in_progress = True
        try:
            async with self._gateway.takeover(present.short_id, settings) as new_gateway:
                started_at = time.monotonic()
                sockets = self._gateway.old_sockets.begin(present.short_id)
                successor = await self._start_successor(present, spec, sockets, new_gateway)
                await self._engine.promote_next_gateway()
                await self._drain(present)
                seconds = time.monotonic() - started_at
        finally:
            self.in_progress = False
        log.info("gateway_replaced", container=successor.short_id, previous=present.short_id, seconds=round(seconds, 3))
        return UpgradeResult(successor.container_id, present.container_id, seconds)

    async def resume_or_roll_back(self, spec: GatewaySpec) -> GatewayView | None:
        """Complete or undo an earlier upgrade, and remove gateways that have ended.

        Returns the present gateway; None if there is none.
        """
        old_sockets = self._gateway.old_sockets
        gateways = await self._engine.inspect_gateways(spec)
        if gateways.successor is not None:
            await self._resume_or_undo(gateways.current, gateways.successor)
            gateways = await self._engine.inspect_gateways(spec)
        draining = {old.id for old in old_sockets.old_gateways() if old.draining_for is not None}
        for predecessor in gateways.predecessors:
            if not predecessor.running:
                await self._engine.remove_gateway(predecessor.container_id)
                old_sockets.cleanup(predecessor.short_id)
                log.info("gateway_left", container=predecessor.short_id, exit_code=predecessor.exit_code)
            elif predecessor.short_id not in draining:
                await self._drain(predecessor)
        present_ids = {predecessor.short_id for predecessor in gateways.predecessors}
        for old in old_sockets.old_gateways():
            if old.id not in present_ids:
                old_sockets.cleanup(old.id)
        return gateways.current

    async def _start_successor(
        self, present: GatewayView, spec: GatewaySpec, sockets: str, new_gateway: NewGateway
    ) -> GatewayView:
        """Start the new gateway and return it when it has taken over.

        Otherwise the new gateway is removed, and everything is as before.
        """
        try:
            successor = await self._engine.start_next_gateway(spec, sockets)
            async with asyncio.timeout(self._start_timeout):
                while not await new_gateway.has_taken_over():
                    view = (await self._engine.inspect_gateways(spec)).successor
                    if view is None or not view.running:
                        raise GatewayNotReady(await self._with_log_tail("The new gateway exited at its start"))
                    await asyncio.sleep(_POLL_INTERVAL)
        except TimeoutError:
            message = await self._with_log_tail(f"The new gateway does not answer within {self._start_timeout:g} s")
            await self._undo(present.short_id)
            raise GatewayNotReady(message) from None
        except EngineError as error:
            if not error.transient:  # an engine that does not answer could not undo the start either
                await self._undo(present.short_id)
            raise
        except GatewayNotReady:
            await self._undo(present.short_id)
            raise
        return successor

    async def _resume_or_undo(self, present: GatewayView | None, successor: GatewayView) -> None:
        """Promote the new gateway if it serves; remove it otherwise.

        A new gateway that serves has accepted connections. Any other never did, or has lost them.
        """
        predecessor = present.short_id if present is not None else None
        serves = False
        if successor.running:
            with suppress(TimeoutError):
                async with asyncio.timeout(_RESUME_TIMEOUT):
                    while not (serves := await self._has_taken_over(predecessor)):  # noqa: ASYNC110 - no event reports it
                        await asyncio.sleep(_POLL_INTERVAL)
        if serves:
            log.warning("gateway_upgrade_resumed", container=successor.short_id)
            await self._engine.promote_next_gateway()
        else:
            log.warning("gateway_upgrade_undone", container=successor.short_id)
            await self._undo(predecessor)

    async def _has_taken_over(self, predecessor: str | None) -> bool:
        if predecessor is not None and not self._gateway.old_sockets.has_successor(predecessor):
            return False
        return await self._gateway.status() is not None

    async def _undo(self, predecessor: str | None) -> None:
        await self._engine.remove_next_gateway()
        if predecessor is not None:
            self._gateway.old_sockets.undo(predecessor)

    async def _drain(self, predecessor: GatewayView) -> None:
        await self._engine.drain_gateway(predecessor.container_id)
        self._gateway.old_sockets.mark_draining(predecessor.short_id)

    async def _with_log_tail(self, message: str) -> str:
        log_tail = (await self._engine.next_gateway_log()).strip()
        return f"{message}. Its last log lines:\n{log_tail}" if log_tail else f"{message}, and it logged nothing"
