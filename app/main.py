"""Application factory: `create_app` wires the parts, which live as long as the server."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager, closing
from functools import partial
from pathlib import Path

import anyio
import structlog
from fastapi import FastAPI, Response

from app import problems
from app.api import api, openapi
from app.auth import Authentication
from app.context import AppContext, GatewayRouter, InfrastructurePort
from app.http.head_requests import HeadRequests
from app.http.request_metrics import RequestMetrics
from app.http.security_headers import SecurityHeaders
from app.pages import pages, render
from app.settings import Settings
from app.tasks import background_tasks, supervise
from app.version import VERSION
from services.auth.access import AuthService
from services.auth.tokens import TokenKey, write_secret
from services.builds.manager import BuildManager, BuildSettings
from services.clock import Clock, SystemClock
from services.control_metrics.metrics import Metrics
from services.engine.docker.engine import DockerEngine
from services.engine.docker.infrastructure import DockerInfrastructure
from services.engine.infrastructure_port import HOST_SOCKET_ENV
from services.engine.port import Engine, LogConfig
from services.eureka.external_server import ExternalEureka
from services.eureka.local_lease_directory import LocalLeaseDirectory
from services.eureka.registry import Registry
from services.eureka.repository import LeaseRepository
from services.eureka.router import RegistryRouter
from services.gateway.haproxy import HaproxyRouter
from services.infrastructure.bootstrap import Infrastructure, InfrastructureSettings
from services.infrastructure.doctor import Doctor, GatewayContainer
from services.outbound import AllowedServer, OutboundPolicy
from services.readiness import Readiness
from services.rollouts.reconciler.controller import Controller
from services.rollouts.reconciler.crash_points import CrashPoints
from services.rollouts.reconciler.ports import Ports
from services.rollouts.requests.admission import AdmissionRules, refused_services
from services.rollouts.requests.dry_run import DryRun
from services.rollouts.requests.pull_credentials import PullCredentials
from services.rollouts.requests.submit import Submitter
from services.rollouts.state.runtime_status import RuntimeStatus
from services.routing.port import Router
from services.store.database import Store
from services.store.events import ChangeNotifier
from services.store.open import open_store
from services.traffic_metrics.sampler import TrafficSampler

log = structlog.get_logger(__name__)
ADMIN_FILE = "admin.token"
CONTAINER_MARK = Path("/.dockerenv")
"""File that exists only in a container.

The engine logs a container's output, even with a terminal attached.
"""


def create_app(
    settings: Settings,
    *,
    store: Store | None = None,
    engine: Engine | None = None,
    router: GatewayRouter | None = None,
    infrastructure: InfrastructurePort | None = None,
    on_fatal: Callable[[], None] = lambda: None,
    crash_points: CrashPoints | None = None,
) -> FastAPI:
    """Return the ASGI application.

    The arguments that are given replace the real parts. `on_fatal` is called if a background task keeps crashing.
    `crash_points` make the controller crash at chosen points, for tests.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        with ExitStack() as parts:
            opened = store or open_store(settings.data)
            parts.callback(opened.close)
            sluice = app.state.sluice = wire(settings, opened, engine, router, infrastructure, parts, crash_points)
            await sluice.registry.open()
            await sluice.build_manager.open()
            await sluice.auth.open(lambda token: _show_admin_token(settings, token))
            async with anyio.create_task_group() as tasks:
                for part, run in background_tasks(sluice).items():
                    tasks.start_soon(supervise, part, run, sluice.readiness, on_fatal)
                yield
                sluice.stopping.set()
                tasks.cancel_scope.cancel()
            await sluice.build_manager.close()
            await sluice.auth.expire()
            await sluice.gateway.close()
            await sluice.external_eureka.close()

    app = FastAPI(title="Sluice", version=VERSION, lifespan=lifespan, redirect_slashes=False, docs_url=None, redoc_url=None)
    app.include_router(api)
    app.include_router(pages)
    app.add_middleware(Authentication)
    app.add_middleware(SecurityHeaders)
    app.add_middleware(RequestMetrics)
    app.add_middleware(HeadRequests)
    problems.install(app, _problem_page)
    openapi.install(app)
    return app


def wire(
    settings: Settings,
    store: Store,
    engine: Engine | None,
    router: GatewayRouter | None,
    infrastructure: InfrastructurePort | None,
    parts: ExitStack,
    crash_points: CrashPoints | None = None,
) -> AppContext:
    """Create every part with only the parts that it needs.

    The parts created here that hold connections are closed with `parts`.
    """
    clock, notifier = SystemClock(), ChangeNotifier()
    runtime_status, readiness, credentials = RuntimeStatus(), Readiness(), PullCredentials()
    outbound = OutboundPolicy(tuple(AllowedServer.parse(text) for text in settings.eureka_servers))
    rules = AdmissionRules(
        settings.default_route,
        tuple(settings.host_roots),
        tuple(settings.eureka_aliases),
        log_drivers={name: LogConfig(each.driver, each.options) for name, each in settings.log_drivers.items()},
        outbound=outbound,
        protected=_protected(settings),
    )
    docker = engine or parts.enter_context(
        closing(
            DockerEngine(
                settings.name,
                settings.name,
                settings.gateway_image,
                base_url=settings.docker_host,
                keep_net_raw=settings.keep_net_raw,
            )
        )
    )
    haproxy = HaproxyRouter(settings.data / "gateway")
    gateway = router or haproxy
    registry = Registry(clock, LeaseRepository(store))
    external_eureka = ExternalEureka(clock, outbound=outbound)
    routers: list[Router] = [gateway, RegistryRouter(clock, LocalLeaseDirectory(registry), external_eureka)]
    ports = Ports(store, clock, docker, routers)
    controller = Controller(ports, notifier, runtime_status, readiness, credentials, rules, crash_points)
    return AppContext(
        settings=settings,
        store=store,
        clock=clock,
        notifier=notifier,
        runtime_status=runtime_status,
        readiness=readiness,
        engine=docker,
        gateway=gateway,
        infrastructure=infrastructure or _infrastructure(settings, rules, haproxy, docker, store, clock, parts),
        submitter=Submitter(store, clock, docker, notifier, controller.enqueue, rules, credentials),
        dry_run=DryRun(store, clock, docker, routers, rules),
        controller=controller,
        auth=AuthService(store, clock, TokenKey.of(settings.data)),
        metrics=Metrics(VERSION),
        traffic_sampler=TrafficSampler(store, clock, gateway),
        registry=registry,
        external_eureka=external_eureka,
        build_manager=BuildManager(store, clock, docker, notifier, _build_settings(settings)),
    )


def _protected(settings: Settings) -> tuple[str, ...]:
    """Return the host paths of Sluice's data and of the engine's socket.

    These are the paths as Sluice sees them, and the socket's path on the host if Sluice runs in a container.
    """
    engine = settings.docker_host or os.environ.get("DOCKER_HOST") or ""
    sockets = (os.environ.get(HOST_SOCKET_ENV), engine.removeprefix("unix://") if engine.startswith("unix://") else None)
    paths = (os.path.abspath(settings.data), os.path.realpath(settings.data), *sockets)
    return tuple(dict.fromkeys(os.path.normpath(path) for path in paths if path))


def _build_settings(settings: Settings) -> BuildSettings:
    return BuildSettings(
        settings.data / "builds", settings.build_context_size, settings.build_timeout, settings.build_network
    )


def _infrastructure(
    settings: Settings,
    rules: AdmissionRules,
    gateway: HaproxyRouter,
    engine: Engine,
    store: Store,
    clock: Clock,
    parts: ExitStack,
) -> InfrastructurePort:
    infrastructure_settings = InfrastructureSettings(
        data=settings.data,
        gateway_image=settings.gateway_image,
        subnet=settings.subnet,
        gateway_port=settings.gateway_port,
        maxconn=settings.maxconn,
        max_body=settings.max_body_size,
        trusted_proxies=tuple(settings.trusted_proxies),
        log_all=settings.gateway_log_all,
    )
    docker = parts.enter_context(closing(DockerInfrastructure(settings.name, base_url=settings.docker_host)))

    async def refused() -> dict[str, str]:
        return await store.read(partial(refused_services, rules))

    container = GatewayContainer(docker.gateway, settings.gateway_image)
    doctor = Doctor(docker, gateway, store, clock, container, engine.ping, refused)
    return Infrastructure(docker, gateway, infrastructure_settings, doctor=doctor)


def _problem_page(problem: problems.Problem) -> Response:
    body = problem.body()
    context = {"title": body["title"], "detail": body["detail"], "stream": None}
    response: Response = render.page("problem.html", context, body["status"])
    response.headers.update(problem.headers)
    return response


def _show_admin_token(settings: Settings, token: str) -> None:
    """Write the first admin token to its file, and print it once if standard error is a plain terminal.

    Otherwise only the file's path is logged: no log may keep the token.
    """
    path = settings.data / ADMIN_FILE
    write_secret(path, f"{token}\n".encode())
    if sys.stderr.isatty() and not CONTAINER_MARK.exists():
        sys.stderr.write(f"sluice: admin token, shown once and stored in {path}: {token}\n")
        sys.stderr.flush()
    else:
        log.info("admin_token_made", file=str(path))
