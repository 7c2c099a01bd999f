"""A real gateway in its container, with instances on loopback addresses."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import tempfile
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

from services.gateway.config.model import GatewaySettings
from services.gateway.haproxy import HaproxyRouter
from services.loadtest.http1_client import Connection, HttpResponse, request
from services.routing.port import EndpointState, RoutedService
from services.spec import Healthcheck, Route
from tests.support.http_instance import HEALTHY, Instance, Ledger

IMAGE = "sluice-bench/gateway"
INTERNAL, PORT = 18000, 18050


def _own_net() -> tuple[str, int]:
    """Return loopback addresses and a public port (and the next one) for this process alone.

    Other test runs may be active at the same time.
    """
    for n in range(os.getpid() % 50, os.getpid() % 50 + 50):
        port = 18100 + n % 50 * 2
        try:
            with socket.create_server(("", port)), socket.create_server(("", port + 1)):
                return f"127.18.{n % 50}", port
        except OSError:
            continue
    raise RuntimeError("no port between 18100 and 18199 is free")


NET, PUBLIC = _own_net()
BRIDGE = f"{NET}.1"
_names = count(1)
T = TypeVar("T")


@dataclass
class GatewayFixture:
    """`gateway` uses `directory`; `instance` creates instances, all with one ledger."""

    directory: Path
    gateway: HaproxyRouter
    name: str
    settings: GatewaySettings
    ledger: Ledger = field(default_factory=Ledger)
    instances: list[Instance] = field(default_factory=list)

    url = f"http://127.0.0.1:{PUBLIC}"

    async def instance(self, id: str, *, healthcheck: Healthcheck = HEALTHY) -> Instance:
        """Start an instance that the gateway does not know."""
        address = f"{NET}.{len(self.instances) + 2}"
        instance = await Instance(id, address, PORT, self.ledger, healthcheck=healthcheck).start()
        self.instances.append(instance)
        return instance

    async def serve(self, service: RoutedService, replicas: int) -> list[Instance]:
        """Publish the service, and admit this many new instances."""
        await self.gateway.publish(service)
        made = [await self.instance(f"{service.name}-r1-{n + 1}") for n in range(replicas)]
        for instance in made:
            await self.gateway.admit(instance.endpoint())
        return made

    async def ask(
        self, path: str, method: str = "GET", *, port: int = PUBLIC, at: str = "127.0.0.1", **headers: str
    ) -> HttpResponse:
        """Send one request on a connection of its own."""
        host = headers.pop("Host", f"{at}:{port}")
        body = headers.pop("body", "").encode()
        connection = await Connection.open(at, port)
        try:
            async with asyncio.timeout(30):
                return await connection.send(request(method, host, path, body=body, close=True, **headers))
        finally:
            connection.close()

    def docker(self, *words: str) -> str:
        return subprocess.run(["docker", *words], check=True, capture_output=True, text=True).stdout

    def logs(self) -> str:
        done = subprocess.run(["docker", "logs", self.name], check=True, capture_output=True, text=True)
        return done.stdout + done.stderr

    async def endpoint_state(self, instance: str) -> EndpointState | None:
        return (await self.gateway.observe(instance.rpartition("-r")[0])).get(instance)

    async def answering(self) -> None:
        await until(self.gateway.status)


def service(name: str = "web", n: int = 0, **fields: Any) -> RoutedService:
    """Return a service under `/<name>`, with the prefix stripped."""
    plain = RoutedService(
        name,
        PORT,
        INTERNAL + n,
        routes=(Route(path_prefix=f"/{name}", strip_prefix=True),),
        queue_timeout=5,
        healthcheck=HEALTHY,
    )
    return replace(plain, **fields)


async def until(look: Callable[[], Coroutine[Any, Any, T]], within: float = 15) -> T:
    """Repeat `look` until its result is true, and return the result. TimeoutError after `within` seconds."""
    async with asyncio.timeout(within):
        while not (seen := await look()):  # noqa: ASYNC110 - the gateway sends no notification
            await asyncio.sleep(0.02)
    return seen


@asynccontextmanager
async def real_gateway(
    *, start: str | None = None, bridge: str = BRIDGE, subnet: str = "127.0.0.0/8", **settings: Any
) -> AsyncIterator[GatewayFixture]:
    """Yield a gateway that answers and has no service. `start`: shell commands instead of its start.sh."""
    with tempfile.TemporaryDirectory(prefix="sluice-gateway-") as place:
        directory = Path(place) / "gateway"
        fixture = GatewayFixture(
            directory,
            HaproxyRouter(directory),
            f"sluice-test-gateway-{os.getpid()}-{next(_names)}",
            GatewaySettings(bridge, subnet, PUBLIC, **settings),
        )
        await fixture.gateway.configure(fixture.settings)
        fixture.docker(
            "run",
            "-d",
            "--name",
            fixture.name,
            "--network",
            "host",
            "--restart",
            "always",
            "-v",
            f"{directory}:/run/gateway",
            *(["--entrypoint", "sh", IMAGE, "-c", start] if start else [IMAGE]),
        )
        try:
            await fixture.answering()
            await fixture.gateway.restore([], [])
            yield fixture
        finally:
            fixture.docker("rm", "-f", fixture.name)
            await fixture.gateway.close()
            for instance in fixture.instances:
                await instance.stop()
