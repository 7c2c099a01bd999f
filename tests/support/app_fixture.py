"""The application with a fake engine and a fake gateway; its ports, store and controller are real."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import httpx2
from fastapi import FastAPI
from fastapi.testclient import TestClient

from app.main import create_app
from app.settings import Settings
from services.clock import SystemClock
from services.engine.infrastructure_port import NetworkInfo
from services.engine.port import EngineError
from services.gateway.config.model import GatewaySettings
from services.infrastructure.doctor_findings import DoctorFinding, ok, wrong
from services.infrastructure.gateway_upgrade import UpgradeResult
from services.routing.traffic_counts import CountKey
from tests.support.fakes.engine import FakeEngine
from tests.support.fakes.gateway import FakeGateway

READY: dict[str, Any] = {"disable": True, "test": None}
"""Health check of instances that are ready as soon as they run: the fake engine's have no open port."""
NEVER: dict[str, Any] = {"test": ["CMD", "false"], "disable": None}
"""Health check that never succeeds: the engine's health status stays `starting`."""


class FakeGatewayRouter(FakeGateway):
    """FakeGateway with the methods that bootstrap and /readyz need."""

    answering = True
    news: Counter[CountKey] | None = None
    """Responses counted since the last call."""

    async def configure(self, settings: GatewaySettings) -> None:
        """Do nothing: there is no configuration to write."""

    async def status(self) -> dict[str, Any] | None:
        return {"version": "fake", "old_workers": []} if self.answering else None

    async def take_response_counts(self) -> Counter[CountKey] | None:
        """Return `news` once, then empty counts."""
        news, self.news = self.news, Counter()
        return news

    async def close(self) -> None:
        """Do nothing: there is nothing to release."""


class FakeInfrastructure:
    """Infrastructure that is ready immediately, unless `refuses` is set to an error."""

    refuses: Exception | None = None
    subnet = "10.99.0.0/24"
    network_missing = False
    outdated: str | None = None
    upgrading = False
    findings: tuple[DoctorFinding, ...] = (ok("engine", "Docker 27.0"),)

    async def ensure(self) -> NetworkInfo:
        if self.refuses is not None:
            raise self.refuses
        self.network_missing = False
        return NetworkInfo(self.subnet, f"{self.subnet.rpartition('.')[0]}.1")

    async def wait_until_degraded(self) -> Literal["network", "gateway"]:
        while not self.network_missing:  # noqa: ASYNC110 - a test in another thread says when
            await asyncio.sleep(0.01)
        return "network"

    async def check_network(self) -> Mapping[str, Any]:
        if self.network_missing:
            raise EngineError("the instances' network is missing")
        return {}

    async def diagnose(self, unknown_containers: Sequence[str], not_ready: Mapping[str, str]) -> list[DoctorFinding]:
        return [*self.findings, *(wrong(part, why, "See its log.") for part, why in not_ready.items())]

    async def upgrade(self, *, force: bool = False) -> UpgradeResult | None:
        if self.refuses is not None:
            raise self.refuses
        return UpgradeResult("c" * 64, "b" * 64, 0.5) if force or self.outdated else None


@dataclass
class AppFixture:
    """The application under test. `client` is authenticated as admin; tests control the engine."""

    data: Path
    settings: Settings
    engine: FakeEngine
    gateway: FakeGatewayRouter
    infrastructure: FakeInfrastructure
    app: FastAPI
    client: TestClient = field(init=False)

    @property
    def token(self) -> str:
        return (self.data / "admin.token").read_text().strip()

    @property
    def sluice(self) -> Any:
        return self.app.state.sluice

    def image(self, *references: str) -> None:
        for reference in references:
            self.engine.add_image(reference)

    def deploy(self, service: str = "web", image: str = "web:1", *, wait: str = "20", **fields: Any) -> httpx2.Response:
        """Deploy with an existing image and instances that are ready immediately."""
        if image not in {**self.engine.registry, **self.engine.images}:
            self.image(image)
        body = {"service": service, "image": image, "healthcheck": READY, **fields}
        return self.client.post(f"/deployments{f'?wait={wait}' if wait else ''}", json=body)

    def as_scope(self, scope: str, **fields: Any) -> dict[str, str]:
        """Create a token of this scope, and return its request headers."""
        made = self.client.post("/tokens", json={"name": f"{scope} {len(fields)}", "scope": scope, **fields})
        assert made.status_code == 201, made.text
        return {"Authorization": f"Bearer {made.json()['token']}"}

    def call(self, work: Callable[..., Awaitable[Any]], *arguments: Any) -> Any:
        """Run `work` in the app's own event loop, and return its result."""
        assert self.client.portal is not None
        return self.client.portal.call(work, *arguments)

    def count(self, path: str, **parameters: str) -> int:
        return len(self.client.get(path, params={"limit": "200", **parameters}).json()["items"])


def build(data: Path, **settings: Any) -> AppFixture:
    """Build the fixture without starting the app."""
    clock = SystemClock()
    wanted = Settings(data=data, **{"eureka_port": 0, **settings})
    engine, gateway, infrastructure = FakeEngine(clock), FakeGatewayRouter(clock), FakeInfrastructure()
    app = create_app(wanted, engine=engine, router=gateway, infrastructure=infrastructure)
    return AppFixture(data, wanted, engine, gateway, infrastructure, app)


@contextmanager
def living(fixture: AppFixture) -> Iterator[AppFixture]:
    """Run the app in this process until the block is left; errors of the app are answered, not raised."""
    with TestClient(fixture.app, base_url="http://sluice.test", raise_server_exceptions=False) as client:
        client.headers["Authorization"] = f"Bearer {fixture.token}"
        fixture.client = client
        yield fixture
    fixture.engine.close()


def eventually(condition: Callable[[], Any], what: str, patience: float = 10.0) -> Any:
    """Repeat until the condition holds, and return its value. AssertionError after `patience` seconds."""
    until = time.monotonic() + patience
    while not (said := condition()):
        assert time.monotonic() < until, f"not within {patience:g} s: {what}"
        time.sleep(0.01)
    return said
