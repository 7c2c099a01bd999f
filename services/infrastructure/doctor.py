"""Examination of everything that Sluice depends on, with advice for each problem. Changes nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol

from services.clock import Clock
from services.engine.infrastructure_port import GatewayView, NetworkInfo
from services.engine.port import EngineError
from services.infrastructure.doctor_findings import Finding, ok, warning, wrong
from services.infrastructure.host_checks import clock_finding, store_findings
from services.routing.port import RoutingError
from services.store.database import Store

OLDEST_API = (1, 41)
TESTED = "20.10"
PATIENCE = 15.0
"""Seconds that the check of one part may take."""
HARD_STOP = 3600.0
"""Seconds after which the gateway ends an old worker, even with requests in flight.

This is `hard-stop-after` in haproxy.cfg.
"""
_MANY_WORKERS = 10
_NEARLY_FULL = 0.8


class Engine(Protocol):
    """Methods of the engine that the doctor uses."""

    async def inspect_network(self) -> NetworkInfo | None: ...
    async def inspect_gateway(self) -> GatewayView | None: ...
    async def check_reachable(self, image: str, address: str, port: int) -> str | None: ...
    async def answers_outside(self, image: str, address: str, port: int) -> bool: ...


class Gateway(Protocol):
    """Methods of the gateway that the doctor uses."""

    @property
    def bridge_port(self) -> int | None: ...

    async def status(self) -> dict[str, Any] | None: ...
    async def find_drift(self) -> list[str]: ...


class Doctor:
    """Examination of all parts; concurrent callers get one examination each, one after another."""

    def __init__(
        self,
        engine: Engine,
        gateway: Gateway,
        store: Store,
        clock: Clock,
        gateway_image: str,
        gateway_name: str,
        ping: Callable[[], Awaitable[Mapping[str, Any]]],
        refused: Callable[[], Awaitable[Mapping[str, str]]],
    ) -> None:
        """Create a doctor; `refused()` returns services whose present spec is not allowed today → why."""
        self._engine = engine
        self._gateway = gateway
        self._store = store
        self._clock = clock
        self._image = gateway_image
        self._name = gateway_name
        self._ping = ping
        self._refused = refused
        self._one_at_a_time = asyncio.Lock()

    async def diagnose(
        self, *, outdated: str | None, strangers: Sequence[str], not_ready: Mapping[str, str]
    ) -> list[Finding]:
        """Check every part and return the findings, each with advice.

        Starts a container for a moment, never two at the same time, and pulls no image.
        """
        async with self._one_at_a_time:
            rooms = await asyncio.gather(
                self._within("engine", self._of_engine()),
                self._within("network", self._of_network()),
                self._within("firewall", self._of_firewall()),
                self._within("gateway", self._of_gateway(outdated)),
                self._within("gateway's file", self._of_file()),
                self._within("old workers", self._of_workers()),
                self._within("specs", self._of_specs()),
                self._within("store", store_findings(self._store)),
                self._within("clock", clock_finding(self._store, self._clock)),
            )
        found = [finding for room in rooms for finding in room]
        return [*found, _of_instances(strangers), *_of_loop(not_ready)]

    async def _within(self, name: str, look: Awaitable[list[Finding]]) -> list[Finding]:
        """Run one check; a part that cannot be checked is an error."""
        try:
            async with asyncio.timeout(PATIENCE):
                return await look
        except TimeoutError:
            return [wrong(name, f"no answer within {PATIENCE:g} s", "Look at the machine's load, and at `docker info`.")]
        except EngineError as error:
            return [wrong(name, str(error), "See what the engine says: `docker info`, `journalctl -u docker`.")]
        except RoutingError as error:
            return [wrong(name, str(error), f"See what it says: `docker logs {self._name}`. Sluice starts it by itself.")]
        except Exception as error:  # a failing check must not hide the other findings
            return [wrong(name, f"could not be looked at: {error or type(error).__name__}", "Please report this.")]

    async def _of_engine(self) -> list[Finding]:
        facts = await self._ping()
        api = str(facts.get("api_version", "0"))
        oldest = ".".join(map(str, OLDEST_API))
        text = f"Docker {facts.get('version')}, API {api} ({oldest} or newer is needed; tested with Docker {TESTED})"
        if tuple(int(part) for part in api.split(".")) < OLDEST_API:
            return [wrong("engine", text, "Install Docker 20.10 or newer.")]
        return [ok("engine", text)]

    async def _of_specs(self) -> list[Finding]:
        refused = await self._refused()
        if not refused:
            return [ok("specs", "the present spec of every service is allowed")]
        named = "; ".join(f"{service}: {why}" for service, why in list(refused.items())[:5])
        text = f"{len(refused)} are not allowed today, and no instance of them is started again: {named}"
        return [
            warning("specs", text, "Deploy a spec that is allowed, or change the operator's settings (docs/upgrades.md).")
        ]

    async def _of_network(self) -> list[Finding]:
        network = await self._engine.inspect_network()
        if network is None:
            return [
                wrong("network", "is not there", "Restart Sluice: it makes the network, and instances that miss it, anew.")
            ]
        return [ok("network", f"{network.subnet}, the bridge answers at {network.bridge_address}")]

    async def _of_firewall(self) -> list[Finding]:
        network = await self._engine.inspect_network()
        if network is None:
            return [warning("firewall", "cannot be tried without the network", "See the network.")]
        reached = asyncio.Event()

        async def take(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            reached.set()
            writer.close()

        try:
            server = await asyncio.start_server(take, network.bridge_address, 0)
        except OSError as error:
            advice = "Sluice has to run in the host's network, on the engine's own machine."
            return [wrong("firewall", f"{network.bridge_address} cannot be listened on: {error.strerror}", advice)]
        async with server:
            port = server.sockets[0].getsockname()[1]
            why = await self._engine.check_reachable(self._image, network.bridge_address, port)
        if why is None and reached.is_set():
            reached_from_inside = ok("firewall", f"a container reaches the bridge at {network.bridge_address}")
            return [reached_from_inside, await self._of_bridge(network)]
        rule = f"from {network.subnet} to {network.bridge_address}"
        advice = (
            f"Let the bridge in: `sudo ufw allow {rule}`, or "
            f"`sudo iptables -I INPUT -s {network.subnet} -d {network.bridge_address} -j ACCEPT`. "
            "Without it services do not reach each other by `links` and `internal_url`; requests from outside do come in."
        )
        unreached = wrong("firewall", f"a container does not reach the bridge at {network.bridge_address}: {why}", advice)
        return [unreached, await self._of_bridge(network)]

    async def _of_bridge(self, network: NetworkInfo) -> Finding:
        """Try one of the gateway's ports on the bridge from another network.

        This check follows the one of the firewall, because each starts the container that connects.
        """
        part, port = "bridge's ports", self._gateway.bridge_port
        if port is None:
            return ok(part, "no service has one yet")
        where = f"{network.bridge_address}:{port}"
        try:
            answered = await self._engine.answers_outside(self._image, network.bridge_address, port)
        except EngineError as error:
            advice = "The engine's default network (docker0) is needed for it; without one, look from another machine."
            return warning(part, f"cannot be tried from another network: {error}", advice)
        if not answered:
            return ok(part, f"closed to other networks: {where} does not answer a container on the engine's default one")
        advice = (
            f"Something gives connections from elsewhere an address in {network.subnet}: look for SNAT and MASQUERADE in "
            "`sudo iptables -t nat -S`. Services without a route are open to all who reach this address until it has gone."
        )
        return wrong(part, f"{where} answers a container on another network", advice)

    async def _of_gateway(self, outdated: str | None) -> list[Finding]:
        view, facts = await asyncio.gather(self._engine.inspect_gateway(), self._gateway.status())
        logs = f"See what it says: `docker logs {self._name}`."
        if view is None or not view.running:
            state = "is not there" if view is None else f"does not run (exit code {view.exit_code})"
            return [wrong("gateway", f"its container {state}", f"Sluice starts it by itself within seconds. {logs}")]
        if facts is None:
            return [wrong("gateway", "runs, and does not answer", f"{logs} If it hangs: `docker restart {self._name}`.")]
        text = f"HAProxy {facts.get('version')}, up for {_span(facts.get('uptime', 0))}"
        if view.restarts:
            text += f", started again {view.restarts} times by the engine"
        connections, most = facts.get("connections", 0), facts.get("maxconn", 0)
        if most and connections > _NEARLY_FULL * most:
            detail = f"{text}, {connections} of {most} connections in use"
            return [warning("gateway", detail, "Raise SLUICE_MAXCONN, restart Sluice, then `sluice gateway upgrade`.")]
        if outdated is not None:
            return [
                warning("gateway", f"{text}, outdated: {outdated}", "Upgrade it, without a loss: `sluice gateway upgrade`.")
            ]
        return [ok("gateway", f"{text}, {connections} of {most} connections in use")]

    async def _of_file(self) -> list[Finding]:
        different = await self._gateway.find_drift()
        if not different:
            return [ok("gateway's file", "file, maps and worker are the same")]
        advice = "Restart Sluice: it makes them equal, and disturbs nothing that is right."
        return [wrong("gateway's file", "; ".join(different[:5]), advice)]

    async def _of_workers(self) -> list[Finding]:
        facts = await self._gateway.status()
        old = facts.get("old_workers", []) if facts is not None else []
        if not old:
            return [ok("old workers", "none")]
        age = max(each["replaced_for"] or 0 for each in old)
        text = f"{len(old)}, the oldest replaced {_span(age)} ago"
        if age > HARD_STOP + 60:
            advice = f"It should have ended after {_span(HARD_STOP)}: `docker exec {self._name} kill <its pid>`."
            return [wrong("old workers", text, advice)]
        if len(old) > _MANY_WORKERS:
            advice = "They end with their last websocket or stream, or after an hour. Fewer new services at once make fewer."
            return [warning("old workers", text, advice)]
        return [ok("old workers", f"{text}; they end with their last request")]


def _of_instances(strangers: Sequence[str]) -> Finding:
    if not strangers:
        return ok("instances", "the engine runs none that the store does not know")
    text = f"{len(strangers)} run that the store does not know (a backup was restored?): {', '.join(strangers[:5])}"
    return warning(
        "instances", text, "They are left alone. Remove them by hand when their services serve: `docker rm -f …`."
    )


def _of_loop(not_ready: Mapping[str, str]) -> list[Finding]:
    others = {part: why for part, why in not_ready.items() if part not in ("engine", "gateway", "store")}
    return [wrong(part, why, "See Sluice's log.") for part, why in others.items()]


def _span(seconds: float) -> str:
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
