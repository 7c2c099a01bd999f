"""samples/spring deployed as its owner would, and traffic through Spring Cloud Gateway."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import yaml

from services.loadtest.load_generator import LoadGenerator, Workload
from tests.support.docker_cli import ROOT
from tests.support.service_fixture import Images, Json, ServiceFixture
from tests.support.sluice_process import SluiceProcess

IMAGES = Images("sample-service:1", "sample-service:2", "sluice-bench/gateway")
REST_CLIENT = {"EUREKA_CLIENT_RESTCLIENT_ENABLED": "true"}
"""Selects RestClient as transport to Eureka; without it Spring Cloud 2025.0 uses RestTemplate."""
QUICK = {"EUREKA_CLIENT_REGISTRY_FETCH_INTERVAL_SECONDS": "1", "EUREKA_INSTANCE_LEASE_RENEWAL_INTERVAL_IN_SECONDS": "1"}
QUICK_CACHES = {**QUICK, "SPRING_CLOUD_LOADBALANCER_CACHE_TTL": "1s"}
"""Lifetime of all caches of a consumer; the defaults are 30 s and 35 s."""
TALKATIVE = {
    "MANAGEMENT_ENDPOINT_HEALTH_SHOW_DETAILS": "always",
    "MANAGEMENT_ENDPOINTS_WEB_EXPOSURE_INCLUDE": "health,beans",
}
"""Settings with which actuator reports the application's view of the registry, and its beans."""


class Spring(ServiceFixture):
    """sample-service and Spring Cloud Gateway; `door` is the URL for requests to the latter."""

    def __init__(self, sluice: SluiceProcess, http: httpx.AsyncClient, door: str) -> None:
        super().__init__(sluice, http, IMAGES)
        self.service = "sample-service"
        self.door = door

    async def deploy_file(self, name: str, **changes: Any) -> Json:
        """Deploy samples/spring/deploy/NAME.yaml with these fields changed; wait as long as JVMs need."""
        return await self.finished(await self.begin_file(name, **changes))

    async def begin_file(self, name: str, **changes: Any) -> Json:
        body = yaml.safe_load((ROOT / "samples" / "spring" / "deploy" / f"{name}.yaml").read_text("utf-8"))
        for volume in body.get("volumes", []):
            volume["source"] = self.sluice.volume(volume["source"])
        answer = await self.http.post("/deployments", json={**body, **changes, "mode": "replace"})
        assert answer.status_code == 202, answer.text
        return dict(answer.json())

    async def finished(self, deployment: Json, *, expect: str = "succeeded") -> Json:
        while deployment["status"] in ("pending", "progressing", "rolling_back"):
            deployment = await self.get(f"/deployments/{deployment['id']}", wait=60)
        return await self._as_expected(deployment, expect)

    async def says(self, deployment: Json, words: str) -> None:
        """Wait until the deployment's message contains `words`, as long as JVMs take to start."""

        async def said() -> bool:
            return words in (await self.get(f"/deployments/{deployment['id']}"))["message"]

        await self.until(said, within=120)

    @asynccontextmanager
    async def traffic(self, **workload: Any) -> AsyncIterator[LoadGenerator]:
        """Send mixed requests through Spring Cloud Gateway in the block; none may be lost or run twice.

        Latency is measured in bench/ only: JVMs that start in parallel take all of a small machine.
        """
        url = f"{self.door}/sample-service"
        await self.until(lambda: answers(url), within=60)
        async with LoadGenerator(url, Workload(**{"rate": 20, "slow_seconds": 1.0, "patience": 30, **workload})) as load:
            await load.until(lambda request_log: len(request_log.entries) >= 40)
            yield load
        broken = [entry for entry in load.request_log.entries if entry.status is None or not 200 <= entry.status < 300]
        assert broken == [], load.request_log.explain()
        assert (load.request_log.twice, load.request_log.unrecorded) == ([], [])


async def answers(url: str) -> bool:
    try:
        async with httpx.AsyncClient() as http:
            return (await http.get(f"{url}/", timeout=10)).is_success
    except httpx.TransportError:
        return False


async def ask(url: str) -> Json:
    async with httpx.AsyncClient(headers={"Accept": "application/json"}) as http:
        return dict((await http.get(url, timeout=10)).raise_for_status().json())


async def leases(eureka: str) -> dict[str, Json]:
    """Return instance id → data of sample-service's instances at the Eureka server at this URL."""
    listed = (await ask(f"{eureka}apps/"))["applications"]["application"]
    return {each["instanceId"]: each for app in listed if app["name"] == "SAMPLE-SERVICE" for each in app["instance"]}
