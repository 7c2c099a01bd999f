"""samples/spring as services of Sluice, found by each of three registries; for demo and benchmark.

The deployed files are those of samples/spring/deploy, changed only in the registry's address and what consumers see.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import httpx
import yaml

from bench.api import Api, UnexpectedResult
from services.loadtest.request_log import RequestLog

ROOT = Path(__file__).parent.parent

Way = Literal["their server", "stable", "instances"]
WAYS: tuple[Way, ...] = ("their server", "stable", "instances")
SERVICE, GATEWAY = "sample-service", "sample-gateway"
NEW, OLD = "2", "1"
"""Versions that the profiles `local` and `prod` run."""
KNOWN_WITHIN = 180.0
"""Seconds for a new Spring Cloud Gateway to find the service.

A stock server is 30 s behind, and polled every 30 s.
"""
SETTLED_FOR = 5
"""Successful answers in a row that prove that Spring Cloud Gateway has found the service.

Each replica of Spring Cloud Gateway has its own list.
"""
Body = dict[str, Any]


@dataclass(frozen=True)
class Stack:
    """Bodies of POST /deployments.

    `orders`: the volume of the ledger; `their_server`: the URL of a stock Eureka server.
    """

    orders: str
    their_server: str

    def service(self, way: Way, profile: Literal["prod", "local"]) -> Body:
        body = _file("service")
        body["volumes"][0]["source"] = self.orders
        more: Body = {"advertise": way} if way != "their server" else {"eureka": {"url": self.their_server}}
        return {**self._registry(way, body), **more, "profile": profile}

    def gateway(self, way: Way) -> Body:
        return self._registry(way, _file("gateway"))

    def _registry(self, way: Way, body: Body) -> Body:
        """Set the stock server's URL; for Sluice's own registry the applications already have the name."""
        told = {"EUREKA_URL": self.their_server} if way == "their server" else {}
        return {**body, "environment": body.get("environment", {}) | told, "mode": "replace"}


async def address(api: Api) -> str:
    """Return the URL for requests to sample-service, once Spring Cloud Gateway forwards them.

    Raises Spoilt if that takes too long.
    """
    url = f"{(await api.get(f'/services/{GATEWAY}'))['url'].rstrip('/')}/{SERVICE}"
    deadline, good = time.monotonic() + KNOWN_WITHIN, 0
    async with httpx.AsyncClient(timeout=10) as http:
        while good < SETTLED_FOR:
            if time.monotonic() > deadline:
                raise UnexpectedResult(f"no answer from {url}: Spring Cloud Gateway has not found {SERVICE}")
            try:
                good = good + 1 if (await http.get(f"{url}/")).is_success else 0
            except httpx.TransportError:
                good = 0
            await asyncio.sleep(0.2)
    return url


def answered(ledger: RequestLog, phase: str) -> set[str]:
    """Return the versions that answered the requests of this phase."""
    return {entry.version for entry in ledger.entries if entry.phase == phase and entry.version}


def _file(name: str) -> Body:
    body: Body = yaml.safe_load((ROOT / "samples" / "spring" / "deploy" / f"{name}.yaml").read_text("utf-8"))
    return body
