"""Fixture of end-to-end tests on real parts: one service, its traffic, and its containers."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import httpx

from services.loadtest.load_generator import LoadGenerator, Workload
from tests.support.docker_cli import EngineFault, docker
from tests.support.sluice_process import SluiceProcess, hello_spec

T = TypeVar("T")
Json = dict[str, Any]
QUICK_CHECK = {"path": "/healthz", "interval": 0.5, "retries": 2, "start_period": 30}
NEVER_HEALTHY: Json = {
    "environment": {"HELLO_NEVER_HEALTHY": "1"},
    "healthcheck": {"start_period": 3},
}
"""Changes after which an instance never becomes ready, detected as early as a busy machine allows."""


@dataclass(frozen=True)
class Images:
    one: str
    two: str
    gateway: str


class ServiceFixture:
    """One service of samples/hello on a running Sluice; every test has its own."""

    def __init__(self, sluice: SluiceProcess, http: httpx.AsyncClient, images: Images) -> None:
        self.sluice = sluice
        self.http = http
        self.images = images
        self.service = f"s{secrets.token_hex(3)}"

    def spec(self, image: str | None = None, *, service: str | None = None, **fields: Any) -> Json:
        """Return a complete body for a first deployment."""
        # a process that gets SIGTERM before it handles signals ignores it: the grace period bounds that delay
        body = {"healthcheck": QUICK_CHECK, "replicas": 2, "stop_grace_period": 4, **fields}
        return hello_spec(self.sluice, service or self.service, image or self.images.one, **body)

    async def deploy(self, body: Json, *, expect: str = "succeeded") -> Json:
        """Deploy and wait for the end. AssertionError, with the events, if it did not end as `expect`."""
        return await self.ended(await self.http.post("/deployments", params={"wait": 60}, json=body), expect)

    async def update(self, *, expect: str = "succeeded", **fields: Any) -> Json:
        return await self.deploy({"service": self.service, **fields}, expect=expect)

    async def begin(self, **fields: Any) -> Json:
        """Start a deployment without waiting for it."""
        answer = await self.http.post("/deployments", json={"service": self.service, **fields})
        assert answer.status_code == 202, answer.text
        return dict(answer.json())

    async def change(self, verb: str, body: Json | None = None, *, expect: str = "succeeded") -> Json:
        """Run scale, rollback or restart, and wait for its end."""
        answer = await self.http.post(f"/services/{self.service}/{verb}", params={"wait": 60}, json=body or {})
        return await self.ended(answer, expect)

    async def remove(self) -> Json:
        return await self.ended(await self.http.delete(f"/services/{self.service}", params={"wait": 60}), "succeeded")

    async def act(self, deployment: Json, action: str) -> Json:
        answer = await self.http.post(f"/deployments/{deployment['id']}/{action}")
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    async def end_of(self, deployment: Json, *, expect: str = "succeeded") -> Json:
        answer = await self.http.get(f"/deployments/{deployment['id']}", params={"wait": 60})
        return await self._as_expected(answer.json(), expect)

    async def ended(self, answer: httpx.Response, expect: str) -> Json:
        """Return the deployment in an answer to ?wait=, if it ended as expected."""
        said = answer.json()
        deployment = said.get("deployment", said)
        assert "status" in deployment and "service" in deployment, f"{answer.status_code}: {answer.text}"
        assert (answer.status_code == 200) == (expect == "succeeded"), await self.scenario(deployment)
        return await self._as_expected(deployment, expect)

    async def _as_expected(self, deployment: Json, expect: str) -> Json:
        assert deployment["status"] == expect, f"{deployment['status']}, not {expect}\n{await self.scenario(deployment)}"
        return deployment

    async def scenario(self, deployment: Json) -> str:
        """Return the deployment's events and Sluice's last log lines, for an assertion's message."""
        events = [f"  {event['at']} {event['type']}: {event['message']}" for event in await self.events(deployment)]
        head = f"{deployment['id']} {deployment['status']} {deployment['reason']}: {deployment['message']}"
        return "\n".join([head, *events, self.sluice.last_words(15)])

    async def get(self, path: str, **parameters: Any) -> Any:
        answer = await self.http.get(path, params=parameters)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def events(self, deployment: Json) -> list[Json]:
        found = await self.get(f"/deployments/{deployment['id']}/events", limit=200)
        return sorted(found["items"], key=lambda event: int(event["id"]))

    async def of_service(self) -> Json:
        return dict(await self.get(f"/services/{self.service}"))

    async def containers(self, service: str | None = None) -> list[Json]:
        """Return the engine's data of all containers with this service's labels."""
        labels = [f"label=sluice.name={self.sluice.name}", f"label=sluice.service={service or self.service}"]
        filters = [word for label in labels for word in ("--filter", label)]
        while ids := (await self.docker("ps", "--all", "--quiet", "--no-trunc", *filters)).split():
            with contextlib.suppress(EngineFault):  # one of them was removed in between
                return list(json.loads(await self.docker("inspect", *ids)))
        return []

    async def starts(self) -> dict[str, str]:
        """Return container id → start time; equal results mean that no container was restarted in between."""
        return {each["Id"]: each["State"]["StartedAt"] for each in await self.containers() if each["State"]["Running"]}

    async def docker(self, *words: str) -> str:
        """Run docker in a thread: a blocked event loop would add latency to the load generator's requests."""
        return await asyncio.to_thread(docker, *words)

    async def until(self, look: Callable[[], Awaitable[T | None]], within: float = 20) -> T:
        """Repeat `look` until its result is true, and return the result. TimeoutError after `within` seconds."""
        async with asyncio.timeout(within):
            while not (found := await look()):  # noqa: ASYNC110  (polls other processes)
                await asyncio.sleep(0.03)
        return found

    async def reaches(self, deployment: Json, condition: Callable[[Json], bool]) -> Json:
        """Return the deployment as soon as the condition holds."""

        async def look() -> Json | None:
            now: Json = await self.get(f"/deployments/{deployment['id']}")
            return now if condition(now) else None

        return await self.until(look)

    @asynccontextmanager
    async def load(
        self, *, service: str | None = None, lossless: bool = True, **workload: Any
    ) -> AsyncIterator[LoadGenerator]:
        """Send traffic while the block runs.

        Afterwards no request may be lost or run twice, and none confirmed without having run (unless not `lossless`).
        """
        service = service or self.service
        volume = self.sluice.volume(f"{service}-orders")

        async def executions() -> Counter[str]:
            return Counter(await asyncio.to_thread(self.sluice.ledger_of, volume, self.images.one))

        plan = Workload(**{"rate": 80, "slow_seconds": 1.0, **workload})
        async with LoadGenerator(f"{self.sluice.gateway}/{service}", plan, executions=executions) as load:
            await load.until(lambda request_log: len(request_log.entries) >= min(20, plan.requests))
            yield load
        if lossless:
            unharmed(load)

    @asynccontextmanager
    async def by_hand(self, **workload: Any) -> AsyncIterator[LoadGenerator]:
        """Yield a load generator for single requests; it sends none by itself."""

        async def executions() -> Counter[str]:
            return Counter()

        plan = Workload(**{**workload, "requests": 0})
        async with LoadGenerator(f"{self.sluice.gateway}/{self.service}", plan, executions=executions) as load:
            yield load

    @asynccontextmanager
    async def watched(self) -> AsyncIterator[Watch]:
        """Count, from the engine's events, the containers that run at the same time."""
        watch = Watch(len(await self.starts()))
        labels = [f"label=sluice.name={self.sluice.name}", f"label=sluice.service={self.service}"]
        words = ["--filter", "type=container", *(word for label in labels for word in ("--filter", label))]
        reported = await asyncio.create_subprocess_exec(
            "docker", "events", *words, "--format", "{{.Action}}", stdout=asyncio.subprocess.PIPE
        )
        reading = asyncio.create_task(watch.read(reported))
        try:
            yield watch
        finally:
            reported.terminate()
            await reported.wait()
            await reading


class Watch:
    """The numbers of a service's containers that ran at the same time, at most and at least."""

    def __init__(self, running: int) -> None:
        self.running = self.most = self.least = running

    async def read(self, reported: asyncio.subprocess.Process) -> None:
        assert reported.stdout is not None
        async for line in reported.stdout:
            self.running += {b"start": 1, b"die": -1}.get(line.strip(), 0)
            self.most, self.least = max(self.most, self.running), min(self.least, self.running)


def unharmed(load: LoadGenerator, *, but: int = 0) -> None:
    """Assert 0 lost (or exactly `but`), 0 run twice, and no confirmed request that never ran."""
    assert len(load.request_log.failures) == but, load.request_log.explain()
    assert load.request_log.twice == [], load.request_log.explain()
    assert load.request_log.unrecorded == []


def versions(load: LoadGenerator, phase: str) -> set[str]:
    """Return the revisions whose instances answered."""
    return {instance.rpartition("-")[0].rpartition("-")[2] for instance in load.request_log.versions(phase)}
