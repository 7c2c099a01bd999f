"""Actions of the soak: changes as users make them, and failures; each registers what it may lose."""

from __future__ import annotations

import asyncio
import json
import os
import random
import secrets
import signal
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httpx

from bench.oracle import Allowance, Traffic
from services.rollouts.state.status import TERMINAL
from tests.support.docker_cli import EngineFault, docker
from tests.support.resource_usage import children, container_pid, lives
from tests.support.sluice_process import SluiceProcess, hello_spec

Json = dict[str, Any]
TRIO, SOLO, SWAP = "trio", "solo", "swap"
SERVICES: dict[str, Json] = {
    TRIO: {"replicas": 3},
    SOLO: {"replicas": 1, "upstream_keepalive": False, "queue_timeout": 50},
    SWAP: {"replicas": 1, "strategy": "recreate", "queue_timeout": 50},
}
QUICK_CHECK = {"path": "/healthz", "interval": 0.5, "retries": 3, "start_period": 4}
EVERYTHING = frozenset({"GET", "POST", "SLOW"})
POSTS = frozenset({"POST"})
AFTERMATH = 0.4
"""Seconds after a kill in which requests affected by it may still fail."""
HANG_SECONDS = 150.0
"""Seconds in which requests to a service with a frozen instance may fail.

An only instance without surge is restarted in place: its checks, `drain_timeout`, `stop_grace_period` and the start.
"""
DISCONNECT_SECONDS = 5.0
"""Seconds in which requests that were sent to a disconnected instance may still fail."""
DEATHS_WITHIN, MOST_DEATHS = 600.0, 5
"""Period in seconds, and the maximum number of kills of one service within that period.

More kills would make the engine or Sluice delay restarts, rightly, for longer than the service's requests wait.
"""


@dataclass
class ChaosActions:
    """Random actions on one Sluice. `told` receives a log entry for each action."""

    sluice: SluiceProcess
    http: httpx.AsyncClient
    traffic: Traffic
    random: random.Random
    images: list[str]
    told: Callable[..., None]
    left_out: frozenset[str] = frozenset()
    """Ways to kill that are not used."""
    replicas: dict[str, int] = field(default_factory=lambda: {name: spec["replicas"] for name, spec in SERVICES.items()})
    expected: dict[int, set[str]] = field(default_factory=dict)
    """Deployment → statuses in which it may end."""
    faults: list[str] = field(default_factory=list)
    """Errors that no later check would show."""
    _deaths: dict[str, deque[float]] = field(default_factory=dict)
    _under_way: dict[int, str] = field(default_factory=dict)
    """Deployment → service, for deployments in progress."""

    async def first(self) -> None:
        """Deploy every service, twice, so that each has a revision to roll back to."""
        for name in SERVICES:
            await self._ended(await self._ask("POST", "/deployments", self._spec(name)), {"succeeded"})
            await self._ended(await self._new_version(name), {"succeeded"})

    # --- Changes --------------------------------------------------------------------------------------------------------

    async def deploy(self) -> None:
        await self._ended(await self._new_version(self._any_service()), {"succeeded"})

    async def deploy_broken(self) -> None:
        way = self.random.choice(["HELLO_EXIT_AT_START", "HELLO_NEVER_HEALTHY"])
        slots = self.random.choice(["", "1", "2"])
        name = self._any_service()
        faulty = {"HELLO_FAULTY_SLOTS": slots} if slots and name == TRIO else {}
        environment = {way: "3", "HELLO_FAULTY_SLOTS": None, **faulty}
        body = {"service": name, "image": self._image(), "environment": environment}
        await self._ended(await self._ask("POST", "/deployments", body), {"rolled_back"})

    async def configure(self) -> None:
        """Change a setting that replaces no instance."""
        name = self._any_service()
        body = {"service": name, "drain_timeout": self.random.randint(20, 60)}
        await self._ended(await self._ask("POST", "/deployments", body), {"succeeded"})

    async def scale(self) -> None:
        wanted = self.random.choice([count for count in (2, 3, 4) if count != self.replicas[TRIO]])
        if await self._ended(await self._ask("POST", f"/services/{TRIO}/scale", {"replicas": wanted}), {"succeeded"}):
            self.replicas[TRIO] = wanted

    async def roll_back(self) -> None:
        await self._ended(await self._ask("POST", f"/services/{self._any_service()}/rollback", {}), {"succeeded"})

    async def restart(self) -> None:
        await self._ended(await self._ask("POST", f"/services/{self._any_service()}/restart", {}), {"succeeded"})

    async def abort(self) -> None:
        deployment = await self._new_version(self._any_service())
        await self._pause_for(0.0, 2.0)
        await self._act(deployment, "abort")
        await self._ended(deployment, {"aborted", "succeeded"})

    async def pause(self) -> None:
        """Pause a deployment, then resume or abort it."""
        deployment = await self._new_version(self._any_service())
        await self._pause_for(0.0, 1.5)
        if await self._act(deployment, "pause"):
            await self._pause_for(0.5, 3.0)
            await self._act(deployment, self.random.choice(["resume", "resume", "abort"]))
        await self._ended(deployment, {"succeeded", "aborted"})

    async def supersede(self) -> None:
        name = self._any_service()
        first = await self._new_version(name)
        await self._pause_for(0.0, 2.0)
        second = await self._new_version(name)
        await self._ended(first, {"superseded", "succeeded"})
        await self._ended(second, {"succeeded"})

    async def guest(self) -> None:
        """Deploy and remove a service, which makes the gateway reload."""
        name = f"guest-{secrets.token_hex(2)}"
        await self._ended(await self._ask("POST", "/deployments", self._spec(name, {"replicas": 1})), {"succeeded"})
        await self._pause_for(0.0, 2.0)
        await self._ended(await self._ask("DELETE", f"/services/{name}"), {"succeeded"})

    # --- Failures -------------------------------------------------------------------------------------------------------

    async def kill_instance(self) -> bool:
        """Kill an instance by SIGKILL to its process, `docker kill` or `docker rm --force`.

        Returns False if no instance could be chosen.
        """
        chosen = await self._victim()
        if chosen is None:
            return False
        name, container = chosen
        way = self.random.choice(["SIGKILL", "docker kill", "docker rm"])
        several = len(await self._serving(name)) > 1
        gets_survive = several or SERVICES[name].get("upstream_keepalive") is False
        self._expect_more({"rolled_back", "rollback_failed", "failed"}, name)
        self.told("kills", way=way, instance=container)
        since = time.monotonic()
        try:
            if way == "SIGKILL":
                pid = await asyncio.to_thread(container_pid, container)
                if pid:
                    os.kill(pid, signal.SIGKILL)
            else:
                words = ["kill"] if way == "docker kill" else ["rm", "--force"]
                await asyncio.to_thread(docker, *words, container)
        except (EngineFault, ProcessLookupError) as fault:
            self.told("too late", why=str(fault))
        kinds = POSTS if gets_survive else EVERYTHING
        why = f"{way} of {'one of ' if several else 'the only '}{name}"
        self.traffic.excuses.append(Allowance(name, kinds, since, time.monotonic() + AFTERMATH, why))
        return True

    async def hang_instance(self) -> bool:
        """Freeze an instance by SIGSTOP to its process or by `docker pause`. Nothing thaws the instance.

        Returns False if no instance could be chosen.
        """
        chosen = await self._victim()
        if chosen is None:
            return False
        name, container = chosen
        way = self.random.choice(["SIGSTOP", "docker pause"])
        self._expect_more({"rolled_back", "rollback_failed", "failed"}, name)
        self.told("freezes", way=way, instance=container)
        since = time.monotonic()
        try:
            if way == "SIGSTOP":
                pid = await asyncio.to_thread(container_pid, container)
                if pid:
                    os.kill(pid, signal.SIGSTOP)
            else:
                await asyncio.to_thread(docker, "pause", container)
        except (EngineFault, ProcessLookupError) as fault:
            self.told("too late", why=str(fault))
        self.traffic.excuses.append(
            Allowance(name, EVERYTHING, since, since + HANG_SECONDS, f"{way} of an instance of {name}")
        )
        return True

    async def disconnect_instance(self) -> bool:
        """Disconnect an instance from Sluice's network; connect it again half of the time.

        Returns False if no instance could be chosen.
        """
        chosen = await self._victim()
        if chosen is None:
            return False
        name, container = chosen
        several = len(await self._serving(name)) > 1
        again = self.random.choice([True, False])
        self._expect_more({"rolled_back", "rollback_failed", "failed"}, name)
        self.told("disconnects", instance=container, again=again)
        since = time.monotonic()
        try:
            await asyncio.to_thread(docker, "network", "disconnect", self.sluice.name, container)
            if again:
                await self._pause_for(0.0, 2.0)
                await asyncio.to_thread(docker, "network", "connect", self.sluice.name, container)
        except EngineFault as fault:
            self.told("too late", why=str(fault))
        # a request that was sent to the instance gets no answer and no reset: the gateway learns of the loss later
        kinds = POSTS | {"SLOW"} if several else EVERYTHING
        why = f"network disconnect of {'one of ' if several else 'the only '}{name}"
        self.traffic.excuses.append(Allowance(name, kinds, since, time.monotonic() + DISCONNECT_SECONDS, why))
        return True

    async def kill_sluice(self) -> bool:
        self.told("kills Sluice")
        await asyncio.to_thread(self.sluice.kill)
        await self._pause_for(0.0, 3.0)
        await asyncio.to_thread(self.sluice.start)
        return True

    async def stop_sluice(self) -> bool:
        self.told("stops Sluice")
        code = await asyncio.to_thread(self.sluice.stop)
        if code != 0:
            self.faults.append(f"Sluice ended with code {code} after SIGTERM")
        await self._pause_for(0.0, 2.0)
        await asyncio.to_thread(self.sluice.start)
        return True

    async def kill_gateway(self) -> bool:
        """Kill the gateway's master, its worker, or its container.

        In-flight requests are lost; requests that arrive while the gateway is down wait.
        """
        name = f"{self.sluice.name}-gateway"
        ways = ["SIGKILL of the master", "SIGKILL of the worker", "docker kill", "docker rm"]
        way = self.random.choice([way for way in ways if f"gateway: {way}" not in self.left_out])
        self.told("kills the gateway", way=way)
        pid = await asyncio.to_thread(container_pid, name)
        since = time.monotonic()
        gone = asyncio.create_task(self._gone(pid))
        try:
            if way.startswith("docker"):
                words = ["kill"] if way == "docker kill" else ["rm", "--force"]
                await asyncio.to_thread(docker, *words, name)
            elif pid:
                victims = children(pid) if way.endswith("worker") else [pid]
                os.kill(victims[-1] if victims else pid, signal.SIGKILL)
        except (EngineFault, ProcessLookupError) as fault:
            self.told("too late", why=str(fault))
        until = await gone
        away = await self._answers_again(since, pid)
        self.told("the gateway is back", seconds=round(away, 2))
        why = f"gateway: {way}"
        self.traffic.excuses.append(Allowance(None, EVERYTHING, since, until, why, idle_until=time.monotonic()))
        return True

    # --- Helpers --------------------------------------------------------------------------------------------------------

    async def _gone(self, pid: int | None) -> float:
        """Return the monotonic time at which this process, and with it its whole container, is gone."""
        deadline = time.monotonic() + 10
        while pid is not None and lives(pid) and time.monotonic() < deadline:  # noqa: ASYNC110  (polls another process)
            await asyncio.sleep(0.002)
        return time.monotonic()

    async def _answers_again(self, since: float, before: int | None) -> float:
        """Return the seconds until a process other than `before` answers on the gateway's port."""
        async with httpx.AsyncClient(timeout=2) as http:
            while time.monotonic() < since + 60:
                if await asyncio.to_thread(container_pid, f"{self.sluice.name}-gateway") not in (None, before):
                    try:
                        await http.get(f"{self.sluice.gateway}/no-such-service")
                        return time.monotonic() - since
                    except httpx.TransportError:
                        pass
                await asyncio.sleep(0.02)
        self.faults.append("the gateway did not come back within 60 s")
        return time.monotonic() - since

    async def _victim(self) -> tuple[str, str] | None:
        now = time.monotonic()
        names = [TRIO, TRIO, TRIO, SOLO, SWAP]
        recent = {name: [at for at in self._deaths.get(name, ()) if at > now - DEATHS_WITHIN] for name in names}
        names = [name for name in names if len(recent[name]) < MOST_DEATHS]
        if not names:
            return None
        name = self.random.choice(names)
        serving = await self._serving(name)
        if not serving:
            return None
        self._deaths.setdefault(name, deque(maxlen=20)).append(now)
        return name, f"{self.sluice.name}-{self.random.choice(sorted(serving))}"

    async def _serving(self, name: str) -> list[str]:
        rows = (await self._ask("GET", f"/instances?service={name}"))["items"]
        return [row["id"] for row in rows if row["status"] == "serving"]

    def _expect_more(self, statuses: set[str], service: str) -> None:
        """Allow more end statuses: a death during a deployment may fail it."""
        for id in [id for id, whose in self._under_way.items() if whose == service]:
            self.expected[id] = self.expected.get(id, set()) | statuses

    def _any_service(self) -> str:
        return self.random.choice([TRIO, TRIO, SOLO, SWAP])

    def _image(self) -> str:
        return self.random.choice(self.images)

    def _spec(self, name: str, fields: Json | None = None) -> Json:
        fields = {"healthcheck": QUICK_CHECK, **(fields or SERVICES[name])}
        return hello_spec(self.sluice, name, self._image(), **fields)

    async def _new_version(self, name: str) -> Json:
        """Deploy a version that differs from the running one, also if its image is the same."""
        environment = {"TRY": secrets.token_hex(4)}
        return await self._ask("POST", "/deployments", {"service": name, "image": self._image(), "environment": environment})

    async def _act(self, deployment: Json, action: str) -> bool:
        """Run an action on the deployment; return False if it was too late for the action."""
        self.told(action, deployment=deployment["id"])
        answer = await self._ask("POST", f"/deployments/{deployment['id']}/{action}", {}, refusals=(409,))
        return answer.get("code") != "not_in_that_state"

    async def _ended(self, deployment: Json, expected: set[str]) -> bool:
        """Wait for the deployment's end, also while Sluice is down; return whether it succeeded."""
        id = int(deployment["id"])
        self.expected[id] = self.expected.get(id, set()) | expected
        deadline = time.monotonic() + 240
        try:
            while deployment["status"] not in TERMINAL:
                if time.monotonic() > deadline:
                    self.faults.append(f"deployment {id} is still {deployment['status']}: {json.dumps(deployment)[:1500]}")
                    return False
                deployment = await self._ask("GET", f"/deployments/{id}?wait=10")
        finally:
            self._under_way.pop(id, None)
        self.told("ended", deployment=id, status=deployment["status"], reason=deployment["reason"])
        return bool(deployment["status"] == "succeeded")

    async def _ask(self, method: str, path: str, body: Json | None = None, *, refusals: tuple[int, ...] = ()) -> Json:
        """Repeat the request with the same idempotency key until Sluice answers.

        Raises RuntimeError if Sluice refuses the request.
        """
        headers = {"Idempotency-Key": secrets.token_hex(8)} if method != "GET" else {}
        deadline = time.monotonic() + 120
        while True:
            try:
                answer = await self.http.request(method, path, json=body, headers=headers)
                if answer.status_code not in (503, 504):
                    break
            except httpx.TransportError:
                if time.monotonic() > deadline:
                    raise
            await asyncio.sleep(0.1)
        if answer.status_code >= 400 and answer.status_code not in refusals:
            raise RuntimeError(f"{method} {path}: {answer.status_code} {answer.text}")
        said: Json = answer.json()
        if method != "GET" and answer.status_code == 202:
            self.told("asked", deployment=said["id"], kind=said["kind"], service=said["service"])
            self._under_way[int(said["id"])] = said["service"]
        return said

    async def _pause_for(self, least: float, most: float) -> None:
        await asyncio.sleep(self.random.uniform(least, most))
