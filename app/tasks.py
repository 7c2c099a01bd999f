"""Supervised background tasks: infrastructure, controller, Eureka port and housekeeping."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from functools import partial
from ipaddress import IPv4Network

import anyio
import structlog
from sqlmodel import Session

from app.context import AppContext
from app.eureka.asgi import EurekaApp
from app.eureka.auth import EurekaAuth
from app.eureka.server import serve
from services.backoff import Backoff
from services.builds.images import prune, update_latest_tags
from services.engine.port import EngineError
from services.idempotency import delete_expired_keys
from services.readiness import Readiness
from services.routing.port import RoutingError
from services.store.tables import Meta

log = structlog.get_logger(__name__)
FIRST_RETRY_SECONDS, MAX_RETRY_SECONDS = 0.25, 10.0
_REPAIRS = {"gateway": "does not answer; starting it", "network": "is missing; creating it"}
HOUSEKEEPING_SECONDS = 60.0
SWEEP_SECONDS = 1.0
MAX_CRASHES, CRASH_WINDOW_SECONDS = 3, 60.0
FIRST_RESTART_SECONDS = 0.4
BRIDGE_ADDRESS_KEY = "bridge_address"
"""Meta key for the last address of the gateway on the instances' network.

With it `internal_url` is known before the infrastructure is up.
"""


def background_tasks(sluice: AppContext) -> dict[str, Callable[[], Awaitable[None]]]:
    """Return part → function that runs the part's task; /readyz names a part whose task crashed."""
    return {
        "loop": partial(run_controller, sluice),
        "infrastructure": partial(supervise_infrastructure, sluice),
        "eureka": partial(run_eureka_server, sluice),
        "traffic_metrics": sluice.traffic_sampler.run,
        "image_tags": partial(update_latest_tags, sluice.store, sluice.engine, sluice.clock, sluice.notifier),
        "housekeeping": partial(run_housekeeping, sluice),
    }


async def run_controller(sluice: AppContext) -> None:
    """Ensure network and gateway, then run the controller; retry with exponential backoff.

    An EngineError or a RoutingError leads to the retry: the engine or the gateway does not answer.
    """
    readiness = sluice.readiness
    sluice.bridge = await sluice.store.read(_bridge_address)
    backoff = Backoff(FIRST_RETRY_SECONDS, MAX_RETRY_SECONDS)
    while True:
        readiness.report("loop", "is starting")
        try:
            network = await sluice.infrastructure.ensure()
            facts = await sluice.engine.ping()
            sluice.bridge, sluice.node = network.bridge_address, facts.get("node")
            sluice.registry.consumer_view.host = network.bridge_address
            sluice.registry.ownership.network = IPv4Network(network.subnet)
            await sluice.store.write(partial(_save_bridge_address, address=network.bridge_address))
            for part in ("engine", "gateway"):
                readiness.clear(part)
            backoff.reset()
            sluice.infrastructure_ready.set()
            with anyio.CancelScope() as sluice.controller_scope:
                await sluice.controller.run(network.subnet, network.bridge_address)
        except (EngineError, RoutingError) as error:
            part = "engine" if isinstance(error, EngineError) else "gateway"
            readiness.report(part, str(error))
            delay = backoff.next()
            log.warning("not_ready", part=part, error=str(error), again_in=delay)
            await anyio.sleep(delay)


async def supervise_infrastructure(sluice: AppContext) -> None:
    """Create the network and start the gateway again when one is missing after the start.

    The controller runs again if the network could not get its subnet back.
    """
    readiness = sluice.readiness
    await sluice.infrastructure_ready.wait()
    backoff, degraded = Backoff(FIRST_RETRY_SECONDS, MAX_RETRY_SECONDS), None
    while True:
        try:
            if degraded is None:
                degraded = await sluice.infrastructure.wait_until_degraded()
                readiness.report(degraded, _REPAIRS[degraded])
            network = await sluice.infrastructure.ensure()
            if network.bridge_address != sluice.bridge:
                sluice.controller_scope.cancel()
            readiness.clear(degraded)
            degraded = None
            backoff.reset()
        except (EngineError, RoutingError) as error:
            part = degraded or "gateway"
            readiness.report(part, str(error))
            delay = backoff.next()
            log.warning("infrastructure_not_ready", part=part, error=str(error), again_in=delay)
            await anyio.sleep(delay)


async def run_eureka_server(sluice: AppContext) -> None:
    """Serve the Eureka port, and sweep Sluice's registry and the external Eureka servers every second.

    The port opens after the registry was restored: an incomplete list would remove instances from consumers' lists.
    """
    settings, registry = sluice.settings, sluice.registry
    await registry.restored.wait()
    app = EurekaApp(registry, EurekaAuth(sluice.auth if settings.eureka_auth else None))
    async with anyio.create_task_group() as tasks:
        if settings.eureka_port:
            tasks.start_soon(serve, app, [registry.consumer_view.host, *settings.eureka_host], settings.eureka_port)
        while True:
            await registry.tick()
            await sluice.external_eureka.sweep()
            await anyio.sleep(SWEEP_SECONDS)


async def run_housekeeping(sluice: AppContext) -> None:
    """Once a minute, save when tokens were last used, and delete what expired.

    Deleted are sessions, idempotency keys and images of builds that no revision needs.
    """
    while True:
        await anyio.sleep(HOUSEKEEPING_SECONDS)
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
    restarts = Backoff(FIRST_RESTART_SECONDS, MAX_RETRY_SECONDS)
    while True:
        try:
            await run()
            return
        except Exception as error:
            readiness.report(name, f"crashed: {error}")
            now = time.monotonic()
            crashes = [*(at for at in crashes if now - at < CRASH_WINDOW_SECONDS), now]
            log.exception("task_crashed", task=name, crashes=len(crashes))
            if len(crashes) >= MAX_CRASHES:
                on_fatal()
                return
            await anyio.sleep(restarts.delay(len(crashes) - 1))
            readiness.clear(name)


def _bridge_address(session: Session) -> str | None:
    row = session.get(Meta, BRIDGE_ADDRESS_KEY)
    return row.value if row is not None else None


def _save_bridge_address(session: Session, address: str) -> None:
    session.merge(Meta(key=BRIDGE_ADDRESS_KEY, value=address))
