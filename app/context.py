"""The parts of one running Sluice, reachable by the request handlers as `app.state.sluice`."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import anyio

from app.live.event_feed import EventFeed
from app.live.live_views import LiveViews
from app.presenters.rollouts import PresenterContext
from app.settings import Settings
from services.auth.access import AuthService
from services.builds.manager import BuildManager
from services.clock import Clock
from services.concurrency import KeyedLock
from services.control_metrics.metrics import Metrics
from services.engine.infrastructure_port import NetworkInfo
from services.engine.port import Engine
from services.engine.usage_sampler import UsageSampler
from services.eureka.external_server import ExternalEureka
from services.eureka.registry import Registry
from services.gateway.config.model import GatewaySettings
from services.infrastructure.doctor_findings import DoctorFinding
from services.infrastructure.gateway_upgrade import UpgradeResult
from services.readiness import Readiness
from services.rollouts.requests.dry_run import DryRun
from services.rollouts.requests.submit import Submitter
from services.rollouts.state.runtime_status import RuntimeStatus
from services.routing.port import Router
from services.routing.traffic_counts import TrafficCounter
from services.store.database import Store
from services.store.events import ChangeNotifier
from services.traffic_metrics.sampler import TrafficSampler


class InfrastructurePort(Protocol):
    """Port to the infrastructure: the instances' network and the gateway's container."""

    outdated: str | None
    """Reason why the gateway's container differs from one created today; None if it does not differ."""

    @property
    def upgrading(self) -> bool: ...

    async def ensure(self) -> NetworkInfo: ...

    async def wait_until_degraded(self) -> Literal["network", "gateway"]:
        """Return the part that `ensure` has to repair, once there is one."""

    async def check_network(self) -> Mapping[str, Any]:
        """Return the network's facts. Raises EngineError if there is none."""

    async def upgrade(self, *, force: bool = False) -> UpgradeResult | None: ...

    async def diagnose(self, unknown_containers: Sequence[str], not_ready: Mapping[str, str]) -> list[DoctorFinding]: ...


class GatewayRouter(Router, TrafficCounter, Protocol):
    """The router that carries the traffic, with its counts, configuration, status and end."""

    async def configure(self, settings: GatewaySettings) -> None: ...

    async def status(self) -> dict[str, Any] | None: ...

    async def close(self) -> None: ...


class ControllerPort(Protocol):
    """The part of the rollout controller that the API and the background tasks use."""

    reconciles: int

    def enqueue(self, service: str) -> None: ...

    async def run(self, subnet: str, link_address: str) -> None: ...


@dataclass
class AppContext:
    """The parts of the application, created once at start by `app.main`."""

    settings: Settings
    store: Store
    clock: Clock
    notifier: ChangeNotifier
    runtime_status: RuntimeStatus
    readiness: Readiness
    engine: Engine
    gateway: GatewayRouter
    infrastructure: InfrastructurePort
    submitter: Submitter
    dry_run: DryRun
    controller: ControllerPort
    auth: AuthService
    metrics: Metrics
    traffic_sampler: TrafficSampler
    registry: Registry
    external_eureka: ExternalEureka
    build_manager: BuildManager
    idempotency_locks: KeyedLock = field(default_factory=KeyedLock)
    """Locks by token and Idempotency-Key, for requests whose work and whose key are not one transaction."""
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when this process begins to stop; event streams and waiting responses then end."""
    infrastructure_ready: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the network and the gateway were up for the first time."""
    controller_scope: anyio.CancelScope = field(init=False)
    """Scope of the controller's present run; its end makes the controller run again, in the present network."""
    bridge: str | None = None
    node: str | None = None
    live_views: LiveViews = field(init=False)
    """Live content of the open dashboard pages, rendered once per page."""
    usage_sampler: UsageSampler = field(init=False)
    """CPU and memory of the instances on open pages."""
    event_feed: EventFeed = field(init=False)
    """New events for open streams and waiting responses."""

    def __post_init__(self) -> None:
        self.usage_sampler = UsageSampler(self.engine, self.clock)
        self.event_feed = EventFeed(self.store, self.notifier, self.stopping)
        self.live_views = LiveViews(self.store, self.event_feed, self.runtime_status)

    @property
    def presenter_context(self) -> PresenterContext:
        """Return the current values that presenters need beside the rows."""
        return PresenterContext(
            self.runtime_status,
            f"{self.settings.public_host}:{self.settings.gateway_port}",
            self.bridge,
            self.node,
            self.clock,
        )
