"""Sluice killed by SIGKILL at every crash point of every kind of deployment, on real parts under load.

    python -m bench.crash_matrix [--kind NAME …] [--point NAME …]

Each row is one crash: a real `sluice serve` that kills itself there (docs/why-crash-points.md), then one that continues.
The bars: the same final status, exactly the desired containers, no event twice, and no request lost.
A crash in the middle of `recreate`, when no instance serves, delays the requests that wait.
"""

from __future__ import annotations

import argparse
import asyncio
import secrets
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from bench.report import save, table
from services.loadtest.load_generator import LoadGenerator, Workload
from services.rollouts.reconciler.crash_points import POINTS, START
from tests.support.docker_cli import ROOT, build, docker, hello
from tests.support.sluice_process import SluiceProcess, hello_spec

Json = dict[str, Any]
TERMINAL = {"succeeded", "failed", "rolled_back", "aborted", "rollback_failed", "superseded"}
WAIT_TIMEOUT = 40
"""Seconds that requests wait, at the gateway and for their answers.

A slow machine takes ten to start Sluice, and requests that it delays must not be counted as lost.
"""
BEGIN = {"loop:beginning", "loop:begun", "loop:decided", "loop:concluded"}
IN = {point for point in POINTS if point.partition(":")[2] in ("Create", "Start", "Admit")}
OUT = {point for point in POINTS if point.partition(":")[2] in ("MarkDraining", "Withdraw", "Stop", "Remove")}
GONE = OUT - {"before:Withdraw", "after:Withdraw"}
"""Points of the removal of instances that were never admitted, and so are not withdrawn."""
BORN = {point for point in IN if not point.endswith("Admit")}
DIES = {point for point in GONE if not point.endswith(("Stop", "MarkDraining"))}
"""Points of instances that exit by themselves.

They need no Stop, and their change to `draining` is recorded together with the failure.
"""
PUBLISHED = {"loop:published"}
CUT, RECALL = ({point for point in POINTS if point.endswith(name)} for name in (":ForceClose", ":Recall"))
BROKEN = {"environment": {"HELLO_EXIT_AT_START": "3"}}
NEVER = {"environment": {"HELLO_NEVER_HEALTHY": "1"}}
CHECK = {"path": "/healthz", "interval": 0.5, "start_period": 30}


@dataclass(frozen=True)
class Kind:
    """One kind of deployment.

    `asks`: how it is requested; `ends`: its final status; `where`: the crash points that it passes; `then`: an action
    while it is in progress; `again`: how the service is prepared for the next crash; `lossless`: whether no request may
    be lost.
    """

    asks: Callable[[Case], Awaitable[httpx.Response]]
    where: set[str]
    ends: str = "succeeded"
    replicas: int = 2
    begins_with: int = 2
    then: Callable[[Case, Json], Awaitable[None]] | None = None
    again: Callable[[Case], Awaitable[httpx.Response]] | None = None
    spec: Json = field(default_factory=dict)
    lossless: bool = True
    loaded: bool = True
    slow_seconds: float = 1.5
    rate: int = 40
    """Requests a second. While no instance serves all of them wait, and a service can queue 500."""
    patience: float | None = None
    """Minimum seconds from its start to its rollback, which its deadline causes; None without a deadline."""


@dataclass
class Case:
    """One service of one kind, through a series of crashes."""

    sluice: SluiceProcess
    http: httpx.AsyncClient
    name: str
    kind: Kind
    images: tuple[str, str]
    service: str = ""
    key: str = ""
    turn: int = 0

    @property
    def image(self) -> str:
        """The image that does not run at present."""
        return self.images[1 if self.kind.ends != "succeeded" else self.turn % 2]

    async def post(self, path: str, body: Json, **parameters: Any) -> httpx.Response:
        """Post with this crash's idempotency key: a repeated request yields the same deployment."""
        headers = {"Idempotency-Key": self.key} if self.key else {}
        return await self.http.post(path, json=body, headers=headers, params=parameters)

    async def deploy(self, **fields: Any) -> httpx.Response:
        return await self.post("/deployments", {"service": self.service, **fields})

    def spec(self, image: str) -> Json:
        waits = {"drain_timeout": 10, "queue_timeout": WAIT_TIMEOUT}
        fields = {"healthcheck": CHECK, "replicas": self.kind.begins_with, **waits, **self.kind.spec}
        return hello_spec(self.sluice, self.service, image, **fields)

    async def first(self) -> httpx.Response:
        return await self.post("/deployments", self.spec(self.images[0]))

    async def remove(self) -> httpx.Response:
        return await self.http.delete(f"/services/{self.service}")

    async def rollback(self) -> httpx.Response:
        """Roll back to the other one of the first two revisions."""
        return await self.post(f"/services/{self.service}/rollback", {"to_revision": 2 - self.turn % 2})

    async def scale(self, replicas: int) -> httpx.Response:
        return await self.post(f"/services/{self.service}/scale", {"replicas": replicas})


async def _abort_when(case: Case, deployment: Json, condition: Callable[[Json], bool]) -> None:
    """Abort the deployment as soon as the condition holds, and repeat that until it rolls back."""
    async with asyncio.timeout(30):
        while True:
            now = (await case.http.get(f"/deployments/{deployment['id']}")).json()
            if now["status"] in TERMINAL:
                raise AssertionError(f"the deployment ended before the abort: {now['status']} {now['message']}")
            if now["status"] == "rolling_back":
                return
            if condition(now):
                await case.http.post(f"/deployments/{deployment['id']}/abort")
            await asyncio.sleep(0.02)


async def abort_at_once(case: Case, deployment: Json) -> None:
    await _abort_when(case, deployment, lambda now: any(each["revision"] == now["revision"] for each in now["instances"]))


async def abort_in_the_drain(case: Case, deployment: Json) -> None:
    await _abort_when(case, deployment, lambda now: now["progress"]["draining"] > 0 and now["status"] == "progressing")


KINDS: dict[str, Kind] = {
    "first": Kind(Case.first, BEGIN | IN | PUBLISHED, again=Case.remove, begins_with=2, loaded=False),
    "deploy": Kind(lambda case: case.deploy(image=case.image), BEGIN | IN | OUT),
    "recreate": Kind(lambda case: case.deploy(image=case.image), BEGIN | IN | OUT, spec={"strategy": "recreate"}, rate=10),
    "scale out": Kind(lambda case: case.scale(3), BEGIN | IN, replicas=3, again=lambda case: case.scale(2)),
    "scale in": Kind(lambda case: case.scale(1), BEGIN | OUT, replicas=1, again=lambda case: case.scale(2)),
    "rollback": Kind(Case.rollback, BEGIN | IN | OUT),
    "restart": Kind(lambda case: case.post(f"/services/{case.service}/restart", {}), BEGIN | IN | OUT),
    "remove": Kind(Case.remove, BEGIN | OUT | {"loop:unpublished"}, replicas=0, again=Case.first, loaded=False),
    "failing": Kind(lambda case: case.deploy(image=case.image, **BROKEN), BEGIN | BORN | DIES, ends="rolled_back"),
    "abort": Kind(
        lambda case: case.deploy(image=case.image, **NEVER),
        BEGIN | BORN | GONE,
        ends="aborted",
        then=abort_at_once,
    ),
    "late": Kind(
        lambda case: case.deploy(image=case.image, progress_deadline_seconds=4, **NEVER),
        BEGIN | BORN | GONE,
        ends="rolled_back",
        patience=4,
    ),
    "cutting": Kind(
        lambda case: case.deploy(image=case.image), CUT, spec={"drain_timeout": 1}, lossless=False, slow_seconds=5
    ),
    "recalling": Kind(lambda case: case.deploy(image=case.image), RECALL, ends="aborted", then=abort_in_the_drain),
}
COVERING: tuple[tuple[str, str], ...] = (
    *(("deploy", point) for point in POINTS if point in KINDS["deploy"].where),
    *(("cutting", point) for point in sorted(CUT)),
    *(("recalling", point) for point in sorted(RECALL)),
    ("first", "loop:published"),
    ("remove", "loop:unpublished"),
    ("recreate", "done:Stop"),
    ("scale out", "half:Admit"),
    ("scale in", "half:Remove"),
    ("rollback", "after:Admit"),
    ("restart", "done:Start"),
    ("failing", "after:MarkDraining"),
    ("abort", "loop:concluded"),
    ("late", "after:Start"),
    ("deploy", "start:restoring"),
    ("deploy", "start:restored"),
)
"""A selection that has each crash point and each kind at least once."""


def whole() -> list[tuple[str, str]]:
    """Return every crash point of every kind that passes it.

    The points of the start are included for all kinds: to reach them, Sluice crashes in the middle of the deployment first.
    """
    return [(name, point) for name, kind in KINDS.items() for point in POINTS if point in kind.where | set(START)]


async def die(case: Case, point: str) -> Json:
    """Run one crash and return its row; `died` is false if the crash point was not passed.

    Raises AssertionError if the outcome is not as required.
    """
    sluice, kind = case.sluice, case.kind
    case.key, case.turn = secrets.token_hex(8), case.turn + 1
    first, *others = [sorted(kind.where & (IN | OUT | CUT | RECALL))[0], point] if point in START else [point]
    await _start(case, first)
    deployment = await _ask(case)
    died, then = await _until_dead(case, deployment)
    for other in others:
        sluice.settings["SLUICE_CRASH_AT"] = other
        await asyncio.to_thread(sluice.start, wait=False)
        await asyncio.to_thread(sluice.wait_for_death)
    began = time.monotonic()
    await _start(case, None)
    deployment = deployment or await _ask(case)
    assert deployment is not None
    if kind.then is not None and not then:
        await kind.then(case, deployment)
    end = (await case.http.get(f"/deployments/{deployment['id']}", params={"wait": 60})).json()
    took = time.monotonic() - began
    await _check(case, end)
    if kind.again is not None:
        case.key = ""
        answer = await kind.again(case)
        await case.http.get(f"/deployments/{answer.json()['id']}", params={"wait": 60})
    return {"kind": case.name, "point": point, "died": died, "status": end["status"], "seconds": round(took, 2)}


async def _start(case: Case, point: str | None) -> None:
    """Kill a running Sluice, then start one that crashes at `point`, or never if `point` is None."""
    sluice = case.sluice
    if sluice.running:
        await asyncio.to_thread(sluice.kill)
    sluice.settings.pop("SLUICE_CRASH_AT", None)
    if point is not None:
        sluice.settings["SLUICE_CRASH_AT"] = f"{case.service}/{point}"
    await asyncio.to_thread(sluice.start)


async def _ask(case: Case) -> Json | None:
    """Request the deployment and return it; None if Sluice died before it could answer."""
    try:
        answer = await case.kind.asks(case)
    except httpx.TransportError:
        return None
    assert answer.status_code in (200, 202), f"{answer.text}\n{case.sluice.last_words()}"
    return dict(answer.json())


async def _until_dead(case: Case, deployment: Json | None) -> tuple[bool, bool]:
    """Wait until Sluice dies or the deployment ends.

    Returns whether Sluice died before the deployment's end, and whether the action of `then` was accepted.
    """
    then = False
    try:
        if deployment is not None and case.kind.then is not None:
            await case.kind.then(case, deployment)
            then = True
        while case.sluice.running and deployment is not None:
            now = (await case.http.get(f"/deployments/{deployment['id']}", params={"wait": 1})).json()
            if now["status"] in TERMINAL:
                await asyncio.sleep(0.3)  # it may die after recording the final status
                break
    except httpx.TransportError:
        deployment = None
    if deployment is None:
        await asyncio.to_thread(case.sluice.wait_for_death)
    return not case.sluice.running, then


async def _check(case: Case, end: Json) -> None:
    """Check the final status, the containers and the history."""
    kind = case.kind
    where = f"{case.name}: {end['status']} {end['reason']}: {end['message']}"
    assert end["status"] == kind.ends, where
    wanted = kind.begins_with if kind.ends in ("rolled_back", "aborted") else kind.replicas
    labels = [f"label=sluice.name={case.sluice.name}", f"label=sluice.service={case.service}"]
    filters = [word for label in labels for word in ("--filter", label)]
    there = await asyncio.to_thread(docker, "ps", "--all", "--format", '{{.Label "sluice.instance"}} {{.State}}', *filters)
    containers = sorted(line.split() for line in there.splitlines())
    assert len(containers) == wanted and all(state == "running" for _, state in containers), (
        f"{where}; containers: {containers}"
    )
    if wanted:
        instances = (await case.http.get("/instances", params={"service": case.service, "limit": 200})).json()["items"]
        known = sorted(each["id"] for each in instances if each["status"] != "stopped")
        assert known == [instance for instance, _ in containers], f"{known}, {containers}"
    events = (await case.http.get(f"/deployments/{end['id']}/events", params={"limit": 200})).json()["items"]
    told = Counter(
        (event["type"], event.get("instance"), event["message"]) for event in events if event["type"] != "progress"
    )
    recalled = any("matches again" in event["message"] for event in events)
    twice = [what for what, times in told.items() if times > 1 and not recalled]
    assert not twice, f"{where}; duplicate events: {twice}"
    last_words = [event["type"] for event in events if event["type"] in TERMINAL]
    assert last_words == [kind.ends], last_words
    if kind.patience is not None:
        at = {event["type"]: _seconds(event["at"]) for event in events if event["type"] in ("progressing", "rolling_back")}
        late = at["rolling_back"] - at["progressing"]
        assert kind.patience - 0.1 <= late, f"{where}; rolled back after {late:.1f} s"


def _seconds(at: str) -> float:
    return time.mktime(time.strptime(at[:19], "%Y-%m-%dT%H:%M:%S")) + float(f"0.{at[20:23]}")


async def run(
    sluice: SluiceProcess, images: tuple[str, str], cases: Sequence[tuple[str, str]], report: Callable[[Json], None]
) -> list[Json]:
    """Run all crashes and return their rows; each kind has its own service under its own load."""
    rows: list[Json] = []
    async with sluice.client() as http:
        for name in dict.fromkeys(name for name, _ in cases):
            kind, points = KINDS[name], [point for each, point in cases if each == name]
            case = Case(sluice, http, name, kind, images, f"x{secrets.token_hex(2)}")
            if not sluice.running:
                await _start(case, None)
            if name != "first":
                await _ended(case, await case.first())
            if name == "rollback":
                await _ended(case, await case.deploy(image=images[1]))
            if not kind.loaded:
                rows += [_told(await die(case, point), report) for point in points]
                continue
            volume = sluice.volume(f"{case.service}-orders")
            ran = lambda volume=volume: asyncio.to_thread(lambda: Counter(sluice.ledger_of(volume, images[0])))  # noqa: E731
            workload = Workload(rate=kind.rate, slow=0.06, slow_seconds=kind.slow_seconds, patience=WAIT_TIMEOUT)
            async with LoadGenerator(f"{sluice.gateway}/{case.service}", workload, executions=ran) as load:
                await load.until(lambda request_log: len(request_log.entries) >= 10)
                of_kind = [_told(await die(case, point), report) for point in points]
            lost = [entry for entry in load.request_log.entries if entry.status is None or not 200 <= entry.status < 300]
            summary = load.request_log.summary()
            late = summary.lost - len(lost)
            for row in of_kind:
                row |= {"requests": summary.requests, "lost": len(lost), "late": late, "twice": summary.run_twice}
            rows += of_kind
            assert not load.request_log.twice, load.request_log.explain()
            assert not (kind.lossless and (lost or (late and name != "recreate"))), f"{name}: {load.request_log.explain()}"
    return rows


def _told(row: Json, report: Callable[[Json], None]) -> Json:
    report(row)
    return row


async def _ended(case: Case, answer: httpx.Response) -> None:
    assert answer.status_code in (200, 202), f"{answer.text}\n{case.sluice.last_words()}"
    end = (await case.http.get(f"/deployments/{answer.json()['id']}", params={"wait": 60})).json()
    assert end["status"] == "succeeded", end


def _main() -> None:
    parser = argparse.ArgumentParser(description="Kill Sluice at every crash point of every kind of deployment, under load.")
    parser.add_argument("--kind", action="append", choices=list(KINDS))
    parser.add_argument("--point", action="append", choices=POINTS)
    given = parser.parse_args()
    cases = [
        (kind, point) for kind, point in whole() if kind in (given.kind or [kind]) and point in (given.point or [point])
    ]
    build("sluice-bench/gateway", ROOT / "services" / "gateway")
    images = hello("1"), hello("2")
    with tempfile.TemporaryDirectory() as directory:
        with SluiceProcess(Path(directory), SLUICE_GATEWAY_IMAGE="sluice-bench/gateway") as sluice:
            report = lambda row: print(row["kind"], row["point"], row["status"], row["seconds"], row["died"], flush=True)  # noqa: E731
            rows = asyncio.run(run(sluice, images, cases, report))
    kinds = {name: [row for row in rows if row["kind"] == name] for name in dict.fromkeys(row["kind"] for row in rows)}
    figures = [
        [name, len(of), sum(row["died"] for row in of), max(row["seconds"] for row in of), of[0].get("requests", 0),
         of[0].get("lost", 0), of[0].get("late", 0), of[0].get("twice", 0)]
        for name, of in kinds.items()
    ]  # fmt: skip
    print(table(["kind", "boundaries", "deaths", "slowest end, s", "requests", "lost", "late", "run twice"], figures))
    save("crash_matrix", {"rows": rows})


if __name__ == "__main__":
    _main()
