"""Supervised background tasks: infrastructure, controller, Eureka port and housekeeping."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from ipaddress import IPv4Network

import anyio
import structlog
from sqlmodel import Session

from app.context import AppContext
from app.eureka.asgi import EurekaApp
from app.eureka.auth import EurekaAuth
from app.eureka.server import serve
from services.builds.images import prune
from services.engine.port import EngineError
from services.idempotency import delete_expired_keys
from services.readiness import Readiness
from services.routing.port import RoutingError
from services.store.tables import Meta

log = structlog.get_logger(__name__)
FIRST_PAUSE, LONGEST_PAUSE = 0.25, 10.0
HOUSEKEEPING = 60.0
TICK = 1.0
MOST_CRASHES, WITHIN = 3, 60.0
BRIDGE = "bridge_address"
"""Meta key for the last address of the gateway on the instances' network.

With it `internal_url` is known before the infrastructure is up.
"""


async def run_controller(sluice: AppContext) -> None:
    """Ensure network and gateway, then run the controller; retry with exponential backoff.

    An EngineError or a RoutingError leads to the retry: the engine or the gateway does not answer.
    """
    readiness = sluice.readiness
    sluice.bridge = await sluice.store.read(_bridge)
    pause = FIRST_PAUSE
    while True:
        readiness.report("loop", "is starting")
        try:
            network = await sluice.infrastructure.ensure()
            facts = await sluice.engine.ping()
            sluice.bridge, sluice.node = network.bridge_address, facts.get("node")
            sluice.registry.consumer_view.host = network.bridge_address
            sluice.registry.ownership.network = IPv4Network(network.subnet)
            await sluice.store.write(lambda session, at=network.bridge_address: _keep_bridge(session, at))  # type: ignore[misc]
            for part in ("engine", "gateway"):
                readiness.clear(part)
            pause = FIRST_PAUSE
            sluice.infrastructure_ready.set()
            await sluice.controller.run(network.subnet, network.bridge_address)
        except (EngineError, RoutingError) as error:
            part = "engine" if isinstance(error, EngineError) else "gateway"
            readiness.report(part, str(error))
            log.warning("not_ready", part=part, error=str(error), again_in=pause)
            await anyio.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE)


async def supervise_gateway(sluice: AppContext) -> None:
    """Start or recreate the gateway as soon as it does not answer, once the infrastructure was up."""
    readiness = sluice.readiness
    await sluice.infrastructure_ready.wait()
    pause = FIRST_PAUSE
    while True:
        try:
            await sluice.infrastructure.wait_until_degraded()
            readiness.report("gateway", "does not answer; it is being started")
            await sluice.infrastructure.ensure()
            readiness.clear("gateway")
            pause = FIRST_PAUSE
        except (EngineError, RoutingError) as error:
            readiness.report("gateway", str(error))
            log.warning("ground_not_kept", error=str(error), again_in=pause)
            await anyio.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE)


async def run_eureka_server(sluice: AppContext) -> None:
    """Serve the Eureka port, and sweep Sluice's registry and the external Eureka servers every second.

    The port opens after the registry was restored: an incomplete list would remove instances from consumers' lists.
    """
    settings, registry = sluice.settings, sluice.registry
    await registry.restored.wait()
    door = EurekaApp(registry, EurekaAuth(sluice.auth if settings.eureka_auth else None))
    async with anyio.create_task_group() as tasks:
        if settings.eureka_port:
            tasks.start_soon(serve, door, [registry.consumer_view.host, *settings.eureka_host], settings.eureka_port)
        while True:
            await registry.tick()
            await sluice.external_eureka.sweep()
            await anyio.sleep(TICK)


async def run_housekeeping(sluice: AppContext) -> None:
    """Once a minute, save when tokens were last used, and delete what expired.

    Deleted are sessions, idempotency keys and images of builds that no revision needs.
    """
    while True:
        await anyio.sleep(HOUSEKEEPING)
        await sluice.auth.expire()
        await sluice.store.write(lambda session: delete_expired_keys(session, sluice.clock.now()))
        try:
            await prune(sluice.store, sluice.engine)
        except EngineError as error:
            log.warning("images_not_pruned", error=str(error))


async def supervise(
    name: str, run: Callable[[], Awaitable[None]], readiness: Readiness, on_fatal: Callable[[], None]
) -> None:
    """Run a task without end: log a crash, mark Sluice not ready, and run the task again.

    After three crashes within a minute `on_fatal` ends the process, so that its supervisor can restart it.
    """
    crashes: list[float] = []
    while True:
        try:
            await run()
            return
        except Exception as error:
            readiness.report(name, f"crashed: {error}")
            now = time.monotonic()
            crashes = [*(at for at in crashes if now - at < WITHIN), now]
            log.exception("task_crashed", task=name, crashes=len(crashes))
            if len(crashes) >= MOST_CRASHES:
                on_fatal()
                return
            await anyio.sleep(0.2 * 2 ** len(crashes))
            readiness.clear(name)


def _bridge(session: Session) -> str | None:
    row = session.get(Meta, BRIDGE)
    return row.value if row is not None else None


def _keep_bridge(session: Session, address: str) -> None:
    session.merge(Meta(key=BRIDGE, value=address))
