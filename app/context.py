"""Everything that one running Sluice is made of, as `app.state.sluice`: what the doors work with."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from app.live.event_feed import EventFeed
from app.live.live_views import LiveViews
from app.presenters.rollouts import PresenterContext
from app.settings import Settings
from services.auth.access import AuthService
from services.builds.manager import BuildManager
from services.clock import Clock
from services.control_metrics import Metrics
from services.engine.infrastructure_port import NetworkInfo
from services.engine.port import Engine
from services.engine.usage_sampler import UsageSampler
from services.eureka.external_server import ExternalEureka
from services.eureka.registry import Registry
from services.gateway.config.render import GatewaySettings
from services.infrastructure.doctor_findings import Finding
from services.infrastructure.gateway_upgrade import UpgradeResult
from services.rollouts.requests.dry_run import DryRun
from services.rollouts.requests.submit import Submitter
from services.rollouts.state.runtime_status import RuntimeStatus
from services.routing.port import Router
from services.routing.traffic_counts import TrafficCounter
from services.store.database import Store
from services.store.events import ChangeNotifier
from services.traffic_metrics.sampler import TrafficSampler


class InfrastructurePort(Protocol):
    """What makes network and gateway stand."""

    outdated: str | None
    """Why the gateway is not as it would be made today."""

    @property
    def upgrading(self) -> bool: ...

    async def ensure(self) -> NetworkInfo: ...

    async def wait_until_degraded(self) -> None:
        """Returns when `ensure` has something to do."""

    async def upgrade(self, *, force: bool = False) -> UpgradeResult | None: ...

    async def diagnose(self, strangers: Sequence[str], not_ready: Mapping[str, str]) -> list[Finding]: ...


class GatewayRouter(Router, TrafficCounter, Protocol):
    """The router that carries traffic: it counts, has settings, can be asked whether it answers, and left."""

    async def configure(self, settings: GatewaySettings) -> None: ...

    async def status(self) -> dict[str, Any] | None: ...

    async def close(self) -> None: ...


class ControllerPort(Protocol):
    """What the doors need of the rollout loop."""

    reconciles: int

    def enqueue(self, service: str) -> None: ...

    async def run(self, subnet: str, link_address: str) -> None: ...


@dataclass
class AppContext:
    """Made once at start (app.main), then handed to every door."""

    settings: Settings
    store: Store
    clock: Clock
    notifier: ChangeNotifier
    runtime_status: RuntimeStatus
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
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when this process begins to stop: streams and held answers end."""
    infrastructure_ready: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the ground stood for the first time."""
    bridge: str | None = None
    node: str | None = None
    live_views: LiveViews = field(init=False)
    """What open pages show."""
    usage_sampler: UsageSampler = field(init=False)
    """CPU and memory of the instances on open pages."""
    event_feed: EventFeed = field(init=False)
    """What open streams and held answers wait for."""

    def __post_init__(self) -> None:
        self.live_views = LiveViews(self.store, self.notifier, self.runtime_status)
        self.usage_sampler = UsageSampler(self.engine, self.clock)
        self.event_feed = EventFeed(self.store, self.notifier, self.stopping)

    @property
    def presenter_context(self) -> PresenterContext:
        """What views need, as it is now."""
        return PresenterContext(
            self.runtime_status, f"{self.settings.public_host}:{self.settings.gateway_port}", self.bridge, self.node
        )
