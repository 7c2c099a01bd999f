"""The Spring Boot demo: a new version deployed behind Spring Cloud Gateway, every request counted.

It runs three times, by the registry that finds the service: a stock Eureka server; Sluice's, with one address that is never
stale; Sluice's, with the instances. Then Spring Cloud Gateway itself is redeployed. `make demo-spring` runs it from Sluice's
image. SLUICE_URL, SLUICE_TOKEN and SLUICE_NAME say which Sluice, THEIR_EUREKA where the stock Eureka server is.
"""

from __future__ import annotations

import asyncio
import os

from rich.console import Console

from bench.api import Api, UnexpectedResult
from bench.console import DemoConsole, play, verdict
from bench.spring_stack import GATEWAY, NEW, OLD, WAYS, Stack, Way, address, answered
from services.loadtest.http1_client import ConnectionBroken
from services.loadtest.load_generator import LoadGenerator, Workload
from services.loadtest.request_log import RequestLog

RATE = 40.0
"""Requests a second: JVMs that start in parallel take both cores of a small machine."""
STEADY = 3.0
"""Seconds of load before and after each change."""
TOLD: dict[Way, str] = {
    "their server": "A. External Eureka server: instances leave it, and stop after the consumers' caches expired",
    "stable": "B. Sluice's registry, advertise: stable: consumers see one address that never changes",
    "instances": "C. Sluice's registry, advertise: instances: instances stop after the consumers' caches expired",
}


class SpringShow:
    """The steps of the Spring demo.

    `request_log` has all requests of the three ways, in phases that begin with the way's letter.
    """

    def __init__(self, api: Api, demo_console: DemoConsole, stack: Stack, rate: float) -> None:
        self._api = api
        self._teller = demo_console
        self._stack = stack
        self._rate = rate
        self.request_log = RequestLog()

    async def run(self) -> None:
        """Run the demo. Raises Spoilt if a step does not end as required, or if the wrong version answers."""
        with self._teller:
            for way in WAYS:
                await self._redeployed(way)

    async def _redeployed(self, way: Way) -> None:
        letter, demo_console = TOLD[way][0], self._teller
        demo_console.console.print(f"\n[bold]{TOLD[way]}[/bold]", highlight=False)
        before, during, after = (f"{letter} {what}" for what in ("prod", "deploy local", "local"))
        await self._change(f"{letter} infrastructure", self._stack.gateway(way))
        await self._change(before, self._stack.service(way, "prod"))
        async with demo_console.doing(f"{letter} found"):
            url = await address(self._api)
        async with LoadGenerator(url, Workload(rate=self._rate), phase=before, on_entry=demo_console.count) as load:
            await asyncio.sleep(STEADY)
            load.mark(during)
            await self._change(during, self._stack.service(way, "local"))
            load.mark(after)
            await asyncio.sleep(STEADY)
            if way == WAYS[-1]:
                load.mark(title := "gateway redeployed")
                await demo_console.change(self._api, title, f"/services/{GATEWAY}/restart", {})
            demo_console.news("last responses")
        self._take(load.request_log)
        for phase, version in ((before, OLD), (after, NEW)):
            if (found := answered(load.request_log, phase)) != {version}:
                raise UnexpectedResult(f"{phase}: version {', '.join(sorted(found))} answered instead of {version}")

    async def _change(self, title: str, body: dict[str, object]) -> None:
        await self._teller.change(self._api, title, "/deployments", body)

    def _take(self, request_log: RequestLog) -> None:
        self.request_log.entries += request_log.entries
        self.request_log.phases |= request_log.phases
        self.request_log.executions = request_log.executions  # the application's own list, which includes the earlier ways


async def perform(console: Console, rate: float) -> int:
    """Run the whole demo; return exit code 1 if a request was lost or run twice, or a step failed."""
    name = os.environ.get("SLUICE_NAME", "sluice")
    stack = Stack(f"{name}-sample-orders", os.environ["THEIR_EUREKA"])
    api, demo_console = Api(os.environ["SLUICE_URL"], os.environ["SLUICE_TOKEN"]), DemoConsole(console)
    show = SpringShow(api, demo_console, stack, rate)
    failed = ""
    try:
        await show.run()
        link = (await api.post("/sign-in-links", {}))["url"]
    except (UnexpectedResult, ConnectionBroken, OSError) as error:
        failed = str(error)
    finally:
        await api.http.aclose()
    code = verdict(console, show.request_log, {}) if show.request_log.entries else 1
    if failed:
        console.print("[bold red]The demo failed.[/bold red]")
        console.print(failed, highlight=False, markup=False)
        return 1
    console.print(f"\nDashboard (one-time sign-in link): {link}", soft_wrap=True, highlight=False)
    console.print("To remove everything: make down", highlight=False)
    return code


def main() -> None:
    play(__doc__, RATE, perform)


if __name__ == "__main__":
    main()
