"""The test oracle: checks all requests, running instances, the gateway's servers and recorded events."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import re
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from services.gateway.runtime.runtime_api import RuntimeApi
from services.loadtest.request_log import LATE_SECONDS, RequestRecord
from services.rollouts.state.status import TERMINAL, TRANSITIONS, Status
from services.routing.port import RoutingError
from tests.support.docker_cli import docker
from tests.support.sluice_process import SluiceProcess

Json = dict[str, Any]
INSTANCE = re.compile(r"[a-z][a-z0-9-]*-r[0-9]+-[0-9]+")
ROLLED_BACK_FOR = {"unhealthy_instance", "progress_deadline_exceeded", "gateway_unverified"}
AT_ONCE = 0.5
"""Seconds within which a request on a closed connection has failed.

A request that waits for the next gateway takes longer.
"""
REASONS: dict[str, set[str | None]] = {
    "succeeded": {None, "unchanged", *ROLLED_BACK_FOR},
    "rolled_back": {*ROLLED_BACK_FOR},
    "failed": {*ROLLED_BACK_FOR},
    "rollback_failed": {*ROLLED_BACK_FOR, "user"},
    "aborted": {"user"},
    "superseded": {"newer_revision"},
}


def cut_while_idle(lost: RequestRecord) -> bool:
    """Return whether a request was lost because its connection was closed while idle.

    A client that has not yet seen the close fails immediately, whereas a request that waits for the next gateway does not.
    Without an idle connection the client opens a new one: that must not be refused, so a refused connection does not count.
    """
    return not lost.fresh and lost.status is None and lost.latency < AT_ONCE and "Connect call failed" not in lost.error


@dataclass(frozen=True)
class Allowance:
    """Requests that an action may lose.

    They are of these kinds and of this service (None: of all). They were in flight between `since` and `until` of the
    monotonic clock; or, until `idle_until`, their connection was cut while it was idle.
    """

    service: str | None
    kinds: frozenset[str]
    since: float
    until: float
    why: str
    idle_until: float = 0.0

    def covers(self, service: str, entry: RequestRecord, ended: float) -> bool:
        began = ended - entry.latency
        on_its_way = began <= self.until and ended >= self.since
        idle = self.since <= began <= self.idle_until and cut_while_idle(entry)
        return self.service in (None, service) and entry.kind in self.kinds and (on_its_way or idle)


@dataclass
class Traffic:
    """All finished requests of all services, and the lost ones with and without an allowance."""

    patient: frozenset[str]
    """Services with one instance: their requests may wait for it and be late, unlike those of the others."""
    excuses: list[Allowance] = field(default_factory=list)
    requests: Counter[str] = field(default_factory=Counter)
    excused: Counter[str] = field(default_factory=Counter)
    """Reason → number of requests lost for it."""
    late: int = 0
    worst: dict[str, float] = field(default_factory=dict)
    ran: Counter[str] = field(default_factory=Counter)
    _failed: list[tuple[str, RequestRecord, float]] = field(default_factory=list)
    _confirmed: list[str] = field(default_factory=list)
    _read: dict[Path, int] = field(default_factory=dict)

    def add(self, service: str, entry: RequestRecord) -> None:
        self.requests[service] += 1
        answered = entry.status is not None and 200 <= entry.status < 300
        if answered:
            self.worst[service] = max(self.worst.get(service, 0.0), entry.added)
            self.late += entry.added > LATE_SECONDS
            if entry.id:
                self._confirmed.append(entry.id)
        if not answered or (entry.added > LATE_SECONDS and service not in self.patient):
            self._failed.append((service, entry, time.monotonic()))

    def wrong(self, ledgers: Mapping[str, Path]) -> list[str]:
        """Return the violations since the last call: lost without allowance, run twice, confirmed but not run."""
        found = []
        for service, entry, ended in self._failed:
            excuse = next((each for each in self.excuses if each.covers(service, entry, ended)), None)
            if excuse is not None:
                self.excused[excuse.why] += 1
                continue
            how = "fresh" if entry.fresh else "keep-alive"
            found.append(
                f"lost: {service} {entry.kind} {how} {entry.status} after {entry.latency:.3f} s, during {entry.phase}: "
                f"{entry.error}"
            )
        self._failed.clear()
        found += [f"run twice: {id}" for path in ledgers.values() for id in self._news(path) if self._ran_again(id)]
        found += [f"confirmed but never executed: {id}" for id in self._confirmed if not self.ran[id]]
        self._confirmed.clear()
        return found

    def _ran_again(self, id: str) -> bool:
        self.ran[id] += 1
        return self.ran[id] > 1

    def _news(self, path: Path) -> list[str]:
        """Return the complete lines that are new in a ledger."""
        try:
            with path.open("rb") as ledger:
                ledger.seek(self._read.get(path, 0))
                whole, _, _ = ledger.read().rpartition(b"\n")
        except FileNotFoundError:
            return []
        if whole:
            self._read[path] = self._read.get(path, 0) + len(whole) + 1
        return whole.decode().split()


class Creations:
    """Names of all containers that the engine created for this Sluice; no name may occur twice."""

    def __init__(self, sluice: SluiceProcess) -> None:
        self._name = sluice.name
        self.made: Counter[str] = Counter()
        self._told: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None

    async def begin(self) -> None:
        words = ["--filter", "type=container", "--filter", "event=create", "--filter", f"label=sluice.name={self._name}"]
        self._told = await asyncio.create_subprocess_exec(
            "docker", "events", *words, "--format", "{{.Actor.Attributes.name}}", stdout=asyncio.subprocess.PIPE
        )
        self._reading = asyncio.create_task(self._read())

    async def end(self) -> None:
        if self._told is not None and self._reading is not None:
            self._told.terminate()
            await self._told.wait()
            await self._reading

    def twice(self) -> list[str]:
        prefix = f"{self._name}-"
        again = [name for name, count in self.made.items() if count > 1 and INSTANCE.fullmatch(name.removeprefix(prefix))]
        for name in again:
            self.made[name] = 1
        return [f"the id of {name} was used again" for name in again]

    async def _read(self) -> None:
        assert self._told is not None and self._told.stdout is not None
        async for line in self._told.stdout:
            self.made[line.decode().strip()] += 1


class Oracle:
    """Observer from outside: API, engine and gateway must agree."""

    def __init__(self, sluice: SluiceProcess, http: httpx.AsyncClient) -> None:
        self._sluice = sluice
        self._http = http
        self._runtime = RuntimeApi(sluice.data / "gateway" / "master.sock")
        self._seen_event = 0
        self._ended: set[int] = set()
        self._status: dict[int, Status] = {}
        self.deployments: Counter[str] = Counter()
        """Status → number of deployments that ended in it."""
        self.events = 0

    async def settled(self, wanted: Mapping[str, int], within: float) -> list[str]:
        """Wait at most `within` seconds until everything is as required, with `wanted` instances per service.

        Returns [] on success, otherwise the violations seen last.
        """
        deadline = time.monotonic() + within
        while True:
            try:
                wrong = await self._look(wanted)
            except (httpx.HTTPError, RoutingError, OSError) as error:
                wrong = [f"no answer: {type(error).__name__} {error}"]
            if not wrong or time.monotonic() > deadline:
                return wrong
            await asyncio.sleep(0.4)

    async def _look(self, wanted: Mapping[str, int]) -> list[str]:
        ready = await self._http.get("/readyz")
        if ready.status_code != 200 or ready.json()["store_behind_engine"]:
            return [f"/readyz: {ready.text[:500]}"]
        running = [row for row in await self._list("/deployments", limit=20) if row["status"] not in TERMINAL]
        if running:
            return [f"deployment {row['id']} is {row['status']}: {row['message']}" for row in running]
        wrong, serving = [], set()
        for name, count in wanted.items():
            service = (await self._http.get(f"/services/{name}")).json()
            if service["serving"] != count or service["replicas"] != count:
                wrong.append(f"{name}: {service['serving']} of {service['replicas']} serve, expected {count}")
            living = [row for row in await self._list("/instances", service=name) if row["status"] not in ("stopped",)]
            serving |= {(row["id"], row["address"]) for row in living if row["status"] == "serving"}
            wrong += [f"{row['id']} is {row['status']}" for row in living if row["status"] not in ("serving", "failed")]
        if wrong:
            return wrong
        containers, strays = await asyncio.to_thread(self._containers)
        servers = await self._servers()
        told = {"the API": serving, "the engine": containers, "the gateway": servers}
        if strays or len({frozenset(each) for each in told.values()}) != 1:
            wrong = [f"{who}: {sorted(each)}" for who, each in told.items()] + [f"stray: {stray}" for stray in strays]
        return wrong

    def _containers(self) -> tuple[set[tuple[str, str]], list[str]]:
        """Return running instances with addresses, and all other containers with our label but the gateway."""
        ids = docker("ps", "--all", "--quiet", "--filter", f"label=sluice.name={self._sluice.name}").split()
        found, strays = set(), []
        for each in json.loads(docker("inspect", *ids)) if ids else []:
            name = each["Name"].removeprefix(f"/{self._sluice.name}-")
            addresses = [network["IPAddress"] for network in each["NetworkSettings"]["Networks"].values()]
            if INSTANCE.fullmatch(name) and each["State"]["Running"]:
                found |= {(name, f"{address}:8000") for address in addresses}
            elif name != "gateway" or not each["State"]["Running"]:
                strays.append(f"{each['Name']} {each['State']['Status']}")
        return found, strays

    async def _servers(self) -> set[tuple[str, str]]:
        """Return the servers to which the gateway's worker sends requests."""
        rows = csv.DictReader(io.StringIO((await self._runtime.query("show stat")).removeprefix("# ")))
        return {
            (row["svname"], row["addr"])
            for row in rows
            if INSTANCE.fullmatch(row["svname"]) and (row["status"].startswith("UP") or row["status"] == "no check")
        }

    async def history(self, expected: Mapping[int, set[str]]) -> list[str]:
        """Check status, reason and events of the deployments that ended since the last call.

        `expected`: deployment → allowed statuses.
        """
        wrong = []
        rows = [row for row in await self._list("/deployments", limit=100) if row["id"] not in self._ended]
        for row in sorted(rows, key=lambda row: int(row["id"])):
            self._ended.add(row["id"])
            self.deployments[row["status"]] += 1
            allowed = expected.get(row["id"], {"succeeded"})
            which = f"deployment {row['id']} ({row['kind']} of {row['service']})"
            end = f"{which} {row['status']}, {row['reason']}: {row['message']}"
            if row["status"] not in allowed:
                wrong.append(f"{end}; expected {sorted(allowed)}")
            elif row["reason"] not in REASONS[row["status"]]:
                wrong.append(f"{end}: unexpected reason")
        return wrong + await self._told()

    async def _told(self) -> list[str]:
        """Check the events since the last call: no duplicates, and only transitions of the state table."""
        events: list[Json] = []
        cursor = None
        while True:
            page = (await self._http.get("/events", params={"limit": 200, **({"cursor": cursor} if cursor else {})})).json()
            events += [event for event in page["items"] if int(event["id"]) > self._seen_event]
            cursor = page["next"]
            if not cursor or int(page["items"][-1]["id"]) <= self._seen_event:
                break
        events.sort(key=lambda event: int(event["id"]))
        self.events += len(events)
        if events:
            self._seen_event = int(events[-1]["id"])
        return [*self._repeated(events), *self._astray(events)]

    def _repeated(self, events: list[Json]) -> list[str]:
        """Return the events that repeat the preceding event of the same instance or deployment."""
        last: dict[str, tuple[str, str, str]] = {}
        wrong = []
        for event in events:
            whose = event.get("instance") or f"deployment {event.get('deployment')}"
            words = (event["type"], event["message"], json.dumps(event.get("data"), sort_keys=True))
            told = event["type"].startswith("instance_") or event["type"] in {*Status, "progress"}
            if told and last.get(whose) == words:
                wrong.append(f"duplicate event {event['id']}: {whose}: {event['type']} {event['message']}")
            last[whose] = words
        return wrong

    def _astray(self, events: list[Json]) -> list[str]:
        wrong = []
        for event in events:
            if event["type"] not in set(Status) or event.get("deployment") is None:
                continue
            id, status = int(event["deployment"]), Status(event["type"])
            before = self._status.get(id, Status.PENDING)
            if status != before and status not in TRANSITIONS[before]:
                wrong.append(f"deployment {id} went from {before} to {status}")
            elif status == before and status != Status.PENDING:
                wrong.append(f"deployment {id} became {status} twice")
            self._status[id] = status
        return wrong

    async def _list(self, path: str, **parameters: Any) -> list[Json]:
        answer = await self._http.get(path, params=parameters)
        answer.raise_for_status()
        return list(answer.json()["items"])
