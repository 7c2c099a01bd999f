"""The demo: one service deployed, broken, scaled, restarted and rolled back, every request counted.

`make demo` runs it from Sluice's image. SLUICE_URL, SLUICE_TOKEN and SLUICE_NAME say which Sluice.
"""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from typing import Any

from rich.console import Console

from bench.api import Api, UnexpectedResult
from bench.console import DemoConsole, play, verdict
from services.loadtest.http1_client import ConnectionBroken
from services.loadtest.load_generator import LoadGenerator, Workload
from services.loadtest.request_log import RequestLog

SERVICE = "hello"
INSTANCES = 3
RATE = 200.0
"""Requests a second: a few hundred in each step, few enough to leave the machine to the deployments."""
STEADY = 2.0
"""Seconds of load before the first change, for comparison."""


@dataclass(frozen=True)
class Step:
    """One change: `body` is posted to `path`. `status`: the required final status of its deployment."""

    title: str
    path: str
    body: dict[str, Any]
    status: str = "succeeded"


STEPS = (
    Step("second version", "/deployments", {"service": SERVICE, "image": "hello:2"}),
    Step("broken version", "/deployments", {"service": SERVICE, "image": "hello:broken"}, "rolled_back"),
    Step("scale out to 5", f"/services/{SERVICE}/scale", {"replicas": 5}),
    Step("scale in to 3", f"/services/{SERVICE}/scale", {"replicas": INSTANCES}),
    Step("restart", f"/services/{SERVICE}/restart", {}),
)


class Demo:
    """The steps of the demo, run in order and shown on the console."""

    def __init__(self, api: Api, console: Console, volume: str, rate: float) -> None:
        self._api = api
        self._volume = volume
        self._rate = rate
        self.teller = DemoConsole(console)

    async def run(self) -> RequestLog:
        """Run every step under load. Raises Spoilt if one does not end as required."""
        with self.teller as teller:
            first = await self._step(Step("first version", "/deployments", self._first()))
            rollback = Step("rollback", f"/services/{SERVICE}/rollback", {"to_revision": first["revision"]})
            service = await self._api.get(f"/services/{SERVICE}")
            if not service.get("url"):
                raise UnexpectedResult("the service has no public URL; the demo needs SLUICE_DEFAULT_ROUTE=/{name}")
            async with LoadGenerator(
                service["url"], Workload(rate=self._rate), phase="steady load", on_entry=teller.count
            ) as load:
                async with teller.doing("steady load"):
                    await asyncio.sleep(STEADY)
                for step in (*STEPS, rollback):
                    load.mark(step.title)
                    before = await self._serving()
                    await self._step(step)
                    if step.status == "rolled_back" and await self._serving() != before:
                        raise UnexpectedResult(f"the {step.title} changed the running revision")
                teller.news("last responses")
        return load.request_log

    def _first(self) -> dict[str, Any]:
        request_log = {"type": "volume", "source": self._volume, "target": "/data", "shared": True}
        return {
            "service": SERVICE,
            "mode": "replace",
            "image": "hello:1",
            "replicas": INSTANCES,
            "healthcheck": {"path": "/healthz"},
            "volumes": [request_log],
            "note": "make demo",
        }

    async def _step(self, step: Step) -> dict[str, Any]:
        return await self.teller.change(self._api, step.title, step.path, step.body, step.status)

    async def _serving(self) -> set[str]:
        instances = await self._api.get("/instances", service=SERVICE)
        return {instance["container_id"] for instance in instances["items"] if instance["status"] == "serving"}


async def perform(console: Console, rate: float) -> int:
    """Run the whole demo; return exit code 1 if a request was lost or run twice, or a step failed."""
    url, name = os.environ.get("SLUICE_URL", "http://127.0.0.1:7080"), os.environ.get("SLUICE_NAME", "sluice")
    api = Api(url, os.environ.get("SLUICE_TOKEN", ""))
    try:
        show = Demo(api, console, f"{name}-hello-ledger", rate)
        request_log = await show.run()
        link = await api.post("/sign-in-links", {})
    except (UnexpectedResult, ConnectionBroken, OSError) as error:
        console.print("[bold red]The demo failed.[/bold red]")
        console.print(str(error), highlight=False, markup=False)
        return 1
    finally:
        await api.http.aclose()
    return conclude(console, request_log, show.teller.seconds, link["url"])


def conclude(console: Console, request_log: RequestLog, seconds: dict[str, float], link: str) -> int:
    """Print the result and return the exit code."""
    code = verdict(console, request_log, seconds)
    if code == 0:
        console.print(f"\nDashboard (one-time sign-in link): {link}", soft_wrap=True, highlight=False)
        console.print(
            '\nTry next:\n  eval "$(make -s env)"; curl "$SLUICE_GATEWAY/hello"\n'
            "  scripts/sluice deploy hello --image hello:2\n  scripts/sluice rollback hello\n"
            "To remove everything: make down",
            highlight=False,
            markup=False,
        )
    return code


def main() -> None:
    play(__doc__, RATE, perform)


if __name__ == "__main__":
    main()
