"""Examination of everything that Sluice depends on, with advice for each problem. Changes nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from services.clock import Clock
from services.engine.infrastructure_port import GatewayView, NetworkInfo
from services.engine.port import EngineError
from services.infrastructure.doctor_findings import DoctorFinding, ok, warning, wrong
from services.infrastructure.host_checks import clock_finding, store_findings
from services.routing.port import RoutingError
from services.store.database import Store

MIN_API_VERSION = (1, 41)
TESTED_VERSION = "20.10"
CHECK_TIMEOUT = 15.0
"""Seconds that the check of one part may take."""
HARD_STOP_AFTER = 3600.0
"""Seconds after which the gateway ends an old worker, even with requests in flight.

This is `hard-stop-after` in haproxy.cfg.
"""
_MAX_OLD_WORKERS = 10
_NEARLY_FULL = 0.8
_MAX_NAMED = 20
"""Maximum number of unknown containers that a finding names."""


class InspectedEngine(Protocol):
    """Methods of the engine that the doctor uses."""

    async def inspect_network(self) -> NetworkInfo | None: ...
    async def inspect_gateway(self) -> GatewayView | None: ...
    async def check_reachable(self, image: str, address: str, port: int) -> str | None: ...
    async def answers_outside(self, image: str, address: str, port: int) -> bool: ...


class InspectedGateway(Protocol):
    """Methods of the gateway that the doctor uses."""

    @property
    def bridge_port(self) -> int | None: ...

    async def status(self) -> dict[str, Any] | None: ...
    async def find_drift(self) -> list[str]: ...


@dataclass(frozen=True)
class GatewayContainer:
    """The gateway's container, and the image of the containers that the checks start."""

    name: str
    image: str


class Doctor:
    """Examination of all parts; concurrent callers get one examination each, one after another."""

    def __init__(
        self,
        engine: InspectedEngine,
        gateway: InspectedGateway,
        store: Store,
        clock: Clock,
        gateway_container: GatewayContainer,
        ping: Callable[[], Awaitable[Mapping[str, Any]]],
        refused_services: Callable[[], Awaitable[Mapping[str, str]]],
    ) -> None:
        """Create a doctor.

        `refused_services()` returns services whose current spec is not allowed today → why.
        """
        self._engine = engine
        self._gateway = gateway
        self._store = store
        self._clock = clock
        self._image = gateway_container.image
        self._name = gateway_container.name
        self._ping = ping
        self._refused_services = refused_services
        self._lock = asyncio.Lock()

    async def diagnose(
        self, *, outdated: str | None, unknown_containers: Sequence[str], not_ready: Mapping[str, str]
    ) -> list[DoctorFinding]:
        """Check every part and return the findings, each with advice.

        Starts a container for a moment, never two at the same time, and pulls no image.
        """
        async with self._lock:
            checks = await asyncio.gather(
                self._run_check("engine", self._check_engine()),
                self._run_check("network", self._check_network()),
                self._run_check("firewall", self._check_firewall()),
                self._run_check("gateway", self._check_gateway(outdated)),
                self._run_check("gateway's file", self._check_file()),
                self._run_check("old workers", self._check_workers()),
                self._run_check("specs", self._check_specs()),
                self._run_check("store", store_findings(self._store)),
                self._run_check("clock", clock_finding(self._store, self._clock)),
            )
        found = [finding for check in checks for finding in check]
        return [*found, _instances_finding(unknown_containers), *_control_plane_findings(not_ready)]

    async def _run_check(self, name: str, check: Awaitable[list[DoctorFinding]]) -> list[DoctorFinding]:
        """Run one check; a part that cannot be checked is an error."""
        try:
            async with asyncio.timeout(CHECK_TIMEOUT):
                return await check
        except TimeoutError:
            detail = f"no answer within {CHECK_TIMEOUT:g} s"
            return [wrong(name, detail, "Check the host's load and `docker info`.")]
        except EngineError as error:
            return [wrong(name, str(error), "Check `docker info` and `journalctl -u docker`.")]
        except RoutingError as error:
            return [wrong(name, str(error), f"Check `docker logs {self._name}`. Sluice restarts the gateway itself.")]
        except Exception as error:  # a failing check must not hide the other findings
            return [wrong(name, f"check failed: {error or type(error).__name__}", "Please report this.")]

    async def _check_engine(self) -> list[DoctorFinding]:
        facts = await self._ping()
        api = str(facts.get("api_version", "0"))
        oldest = ".".join(map(str, MIN_API_VERSION))
        text = f"Docker {facts.get('version')}, API {api} ({oldest} or newer is needed; tested with Docker {TESTED_VERSION})"
        if tuple(int(part) for part in api.split(".")) < MIN_API_VERSION:
            return [wrong("engine", text, "Install Docker 20.10 or newer.")]
        return [ok("engine", text)]

    async def _check_specs(self) -> list[DoctorFinding]:
        refused_services = await self._refused_services()
        if not refused_services:
            return [ok("specs", "the current spec of every service is allowed")]
        examples = "; ".join(f"{service}: {why}" for service, why in list(refused_services.items())[:5])
        text = f"{len(refused_services)} are not allowed, and their instances are not restarted: {examples}"
        return [warning("specs", text, "Deploy an allowed spec, or change the operator's settings (docs/upgrades.md).")]

    async def _check_network(self) -> list[DoctorFinding]:
        network = await self._engine.inspect_network()
        if network is None:
            return [wrong("network", "not found", "Sluice creates it again within seconds; check `sluice status`.")]
        return [ok("network", f"{network.subnet}, bridge address {network.bridge_address}")]

    async def _check_firewall(self) -> list[DoctorFinding]:
        network = await self._engine.inspect_network()
        if network is None:
            return [warning("firewall", "cannot be tested without the network", "Fix the network first.")]
        reached = asyncio.Event()

        async def take(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            reached.set()
            writer.close()

        try:
            server = await asyncio.start_server(take, network.bridge_address, 0)
        except OSError as error:
            advice = "Run Sluice in the host's network, on the engine's host."
            return [wrong("firewall", f"{network.bridge_address} cannot be bound: {error.strerror}", advice)]
        async with server:
            port = server.sockets[0].getsockname()[1]
            why = await self._engine.check_reachable(self._image, network.bridge_address, port)
        if why is None and reached.is_set():
            reachable = ok("firewall", f"a container reaches the bridge at {network.bridge_address}")
            return [reachable, await self._check_bridge(network)]
        rule = f"from {network.subnet} to {network.bridge_address}"
        advice = (
            f"Allow the bridge: `sudo ufw allow {rule}`, or "
            f"`sudo iptables -I INPUT -s {network.subnet} -d {network.bridge_address} -j ACCEPT`. "
            "Otherwise services cannot reach each other by `links` and `internal_url`; public requests still work."
        )
        unreachable = wrong("firewall", f"a container does not reach the bridge at {network.bridge_address}: {why}", advice)
        return [unreachable, await self._check_bridge(network)]

    async def _check_bridge(self, network: NetworkInfo) -> DoctorFinding:
        """Try one of the gateway's ports on the bridge from another network.

        This check follows the one of the firewall, because each starts the container that connects.
        """
        part, port = "bridge's ports", self._gateway.bridge_port
        if port is None:
            return ok(part, "no service has a port yet")
        address = f"{network.bridge_address}:{port}"
        try:
            answered = await self._engine.answers_outside(self._image, network.bridge_address, port)
        except EngineError as error:
            advice = "The test needs the engine's default network (docker0); without one, test from another host."
            return warning(part, f"cannot be tested from another network: {error}", advice)
        if not answered:
            return ok(part, f"closed to other networks: {address} does not answer a container on the engine's default one")
        advice = (
            f"Something rewrites the source of foreign connections to {network.subnet}: check SNAT and MASQUERADE in "
            "`sudo iptables -t nat -S`. Services without a route are open to all who reach this address."
        )
        return wrong(part, f"{address} answers a container on another network", advice)

    async def _check_gateway(self, outdated: str | None) -> list[DoctorFinding]:
        view, facts = await asyncio.gather(self._engine.inspect_gateway(), self._gateway.status())
        logs = f"Check `docker logs {self._name}`."
        if view is None or not view.running:
            state = "does not exist" if view is None else f"does not run (exit code {view.exit_code})"
            return [wrong("gateway", f"its container {state}", f"Sluice starts it within seconds. {logs}")]
        if facts is None:
            return [wrong("gateway", "runs but does not answer", f"{logs} If it hangs: `docker restart {self._name}`.")]
        text = f"HAProxy {facts.get('version')}, up for {_format_duration(facts.get('uptime', 0))}"
        if view.restarts:
            text += f", restarted {view.restarts} times by the engine"
        connections, maxconn = facts.get("connections", 0), facts.get("maxconn", 0)
        if maxconn and connections > _NEARLY_FULL * maxconn:
            detail = f"{text}, {connections} of {maxconn} connections in use"
            return [warning("gateway", detail, "Raise SLUICE_MAXCONN, restart Sluice, then `sluice gateway upgrade`.")]
        if outdated is not None:
            return [
                warning(
                    "gateway",
                    f"{text}, outdated: {outdated}",
                    "Upgrade it without losing requests: `sluice gateway upgrade`.",
                )
            ]
        return [ok("gateway", f"{text}, {connections} of {maxconn} connections in use")]

    async def _check_file(self) -> list[DoctorFinding]:
        different = await self._gateway.find_drift()
        if not different:
            return [ok("gateway's file", "file, maps and worker match")]
        advice = "Restart Sluice: it corrects the differences and changes nothing else."
        return [wrong("gateway's file", "; ".join(different[:5]), advice)]

    async def _check_workers(self) -> list[DoctorFinding]:
        facts = await self._gateway.status()
        old = facts.get("old_workers", []) if facts is not None else []
        if not old:
            return [ok("old workers", "none")]
        age = max(worker["replaced_for"] or 0 for worker in old)
        text = f"{len(old)}, oldest replaced {_format_duration(age)} ago"
        if age > HARD_STOP_AFTER + 60:
            limit = _format_duration(HARD_STOP_AFTER)
            advice = f"It should have ended after {limit}: `docker exec {self._name} kill <pid>`."
            return [wrong("old workers", text, advice)]
        if len(old) > _MAX_OLD_WORKERS:
            advice = "They end with their last websocket or stream, or after an hour. Add fewer services at a time."
            return [warning("old workers", text, advice)]
        return [ok("old workers", f"{text}; they end with their last request")]


def _instances_finding(unknown_containers: Sequence[str]) -> DoctorFinding:
    if not unknown_containers:
        return ok("instances", "the engine has no unknown containers with Sluice's labels")
    names, count = list(unknown_containers[:_MAX_NAMED]), len(unknown_containers)
    text = f"{count} containers have Sluice's labels and are in no row of the store (a restored backup, a copy?): "
    text += ", ".join(names) + (", …" if count > len(names) else "")
    return warning("instances", text, f"They are left alone. Remove them: `docker rm --force {' '.join(names)}`.")


def _control_plane_findings(not_ready: Mapping[str, str]) -> list[DoctorFinding]:
    others = {part: why for part, why in not_ready.items() if part not in ("engine", "gateway", "store")}
    return [wrong(part, why, "See Sluice's log.") for part, why in others.items()]


def _format_duration(seconds: float) -> str:
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
