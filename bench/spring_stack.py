"""samples/spring as services of Sluice, found by each of three registries: what the demo shows and the bench measures.

What is deployed is what lies in samples/spring/deploy, changed only in where the registry is and what consumers are told.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import httpx
import yaml

from bench.api import Api, Spoilt
from services.loadtest.request_log import RequestLog

ROOT = Path(__file__).parent.parent

Way = Literal["their server", "stable", "instances"]
WAYS: tuple[Way, ...] = ("their server", "stable", "instances")
SERVICE, GATEWAY = "sample-service", "sample-gateway"
NEW, OLD = "2", "1"
"""The version that the profile `local` runs, and that of `prod`."""
KNOWN_WITHIN = 180.0
"""Seconds for a new Spring Cloud Gateway to find the service: a stock server is 30 s behind, and asked every 30 s."""
SETTLED_FOR = 5
"""Answers in a row after which it has: each of its replicas has its own list."""
Body = dict[str, Any]


@dataclass(frozen=True)
class Stack:
    """Bodies of POST /deployments. `orders`: the volume of the ledger; `their_server`: the URL of a stock Eureka server."""

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
        """Sluice's own goes by the name that the applications know; theirs is told where it is."""
        told = {"EUREKA_URL": self.their_server} if way == "their server" else {}
        return {**body, "environment": body.get("environment", {}) | told, "mode": "replace"}


async def address(api: Api) -> str:
    """Where requests for sample-service come in, when Spring Cloud Gateway has found it and sends them on. Raises Spoilt."""
    url = f"{(await api.get(f'/services/{GATEWAY}'))['url'].rstrip('/')}/{SERVICE}"
    deadline, good = time.monotonic() + KNOWN_WITHIN, 0
    async with httpx.AsyncClient(timeout=10) as http:
        while good < SETTLED_FOR:
            if time.monotonic() > deadline:
                raise Spoilt(f"nobody answers at {url}: Spring Cloud Gateway has not found {SERVICE}")
            try:
                good = good + 1 if (await http.get(f"{url}/")).is_success else 0
            except httpx.TransportError:
                good = 0
            await asyncio.sleep(0.2)
    return url


def answered(ledger: RequestLog, phase: str) -> set[str]:
    """The versions that answered what was asked in this phase."""
    return {entry.version for entry in ledger.entries if entry.phase == phase and entry.version}


def _file(name: str) -> Body:
    body: Body = yaml.safe_load((ROOT / "samples" / "spring" / "deploy" / f"{name}.yaml").read_text("utf-8"))
    return body
