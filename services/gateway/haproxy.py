"""The gateway as a router: HAProxy, which carries the traffic.

Every change is written to the file, then sent to the worker, then read back.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from services.gateway.config.model import DesiredBackend, GatewaySettings
from services.gateway.lifecycle.config_state import ConfigState
from services.gateway.lifecycle.drift import DriftDetector
from services.gateway.lifecycle.listener_retention import ListenerRetention
from services.gateway.lifecycle.liveness import probe_public_port
from services.gateway.lifecycle.reload import Reloader
from services.gateway.runtime.counters import Counters
from services.gateway.runtime.listener_transfer import Bind
from services.gateway.runtime.maps import Maps
from services.gateway.runtime.runtime_api import RuntimeApi
from services.gateway.runtime.servers import Servers
from services.gateway.runtime.takeover import HaproxyNewGateway, OldGatewaySockets
from services.gateway.runtime.workers import Workers, parse_endpoint_states
from services.routing.port import Endpoint, EndpointState, RoutedService, RoutingError
from services.routing.traffic_counts import CountKey


class HaproxyRouter:
    """HAProxy in its container, controlled through the files and sockets of `directory`.

    The changes of one service run one at a time.
    """

    def __init__(self, directory: Path) -> None:
        self._api = RuntimeApi(directory / "master.sock")
        self._counters = Counters(self._api)
        self._listener_retention = ListenerRetention(directory)
        self._config = ConfigState(directory)
        self._reloader = Reloader(self._config, self._api, self._counters, self._listener_retention)
        self._old_sockets = OldGatewaySockets(directory)
        self._workers = Workers(self._api, self._reloader.lock, self._old_sockets)
        self._servers = Servers(self._api, self._counters)
        self._maps = Maps(self._api, self._workers)
        self._drift = DriftDetector(self._config, self._reloader, self._servers, self._maps)
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._dead_starts: set[tuple[str, str]] = set()
        """Instances with the ids of their starts that died, until the instances are removed."""
        self._removed: defaultdict[str, set[str]] = defaultdict(set)
        """Service → instances that were removed, which a replaced worker may still list."""

    @property
    def name(self) -> str:
        return "gateway"

    @property
    def old_sockets(self) -> OldGatewaySockets:
        """Sockets of the gateways that another container took over from."""
        return self._old_sockets

    @property
    def retained_binds(self) -> set[Bind]:
        """Addresses and ports that refuse no connection while the gateway is away for a moment."""
        return self._listener_retention.binds

    @property
    def bridge_port(self) -> int | None:
        """A port on the bridge's address at which the current worker answers; None if it has none."""
        loaded = self._reloader.loaded
        return min((each.service.internal_port for each in loaded.backends.values()), default=None) if loaded else None

    async def configure(self, settings: GatewaySettings) -> None:
        """Prepare the files for these settings before the container starts. Raises RoutingError."""
        if self._config.is_adopted:
            self._config.write_all(settings)
        else:
            self._reloader.adopt(settings)
        self._listener_retention.start()

    def drop_unbindable(self) -> list[str]:
        """Remove the services whose ports other processes use from the files, for a gateway that cannot start.

        Returns their names; none once the services were restored. Raises RoutingError.
        """
        return self._reloader.drop_unbindable()

    async def close(self) -> None:
        await self._reloader.close()
        await self._workers.close()
        await asyncio.to_thread(self._listener_retention.close)

    async def status(self) -> dict[str, Any] | None:
        """Return facts about the running HAProxy; None if it does not answer.

        The facts are version, pid, uptime in seconds, connections, and the workers that were replaced.
        """
        try:
            async with self._reloader.lock.shared():
                workers = await self._workers.all()
                lines = (await self._api.query("show info")).splitlines()
        except RoutingError:
            return None
        info = dict(line.split(": ", 1) for line in lines if ": " in line)
        old = [
            {"pid": each.pid, "uptime": each.uptime, "replaced_for": each.replaced_for, "upgraded": bool(each.master)}
            for each in workers[1:]
        ]
        return {
            "version": info.get("Version", ""),
            "pid": workers[0].pid,
            "uptime": workers[0].uptime,
            "connections": int(info.get("CurrConns", 0)),
            "maxconn": int(info.get("Maxconn", 0)),
            "old_workers": old,
        }

    async def find_drift(self) -> list[str]:
        """Return the lasting differences between desired state, files and worker. Raises RoutingError."""
        return await self._drift.find()

    async def is_hung(self, timeout: float) -> bool:
        """Return True if the gateway is unresponsive for `timeout` seconds.

        An unresponsive gateway's master does not answer, and its public port accepts connections but sends nothing. A
        gateway that answers requests is not hung.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        while await self.status() is None:
            if await probe_public_port(self._config.settings.public_port) != "silent":
                return False
            if loop.time() >= deadline:
                return True
        return False

    async def wait_for_exit(self, within: float) -> bool:
        """Return True if the process ends, reloads or is absent; False after `within` seconds."""
        return await self._api.wait_for_exit(within)

    @asynccontextmanager
    async def takeover(self, id: str, settings: GatewaySettings) -> AsyncIterator[HaproxyNewGateway]:
        """Reserve the gateway while another HAProxy takes over from the one in the container `id`.

        In the block the files are those of `settings`, and the gateway is neither changed nor observed otherwise. Raises
        RoutingError.
        """
        await self._reloader.wait_until_queue_is_empty()
        async with self._reloader.lock.exclusive():
            with self._reloader.hand_over_to(settings) as mark_loaded:
                await self._counters.before_reload()
                yield HaproxyNewGateway(id, self._api, self._old_sockets, mark_loaded)

    async def queued_requests(self) -> dict[str, int]:
        """Return how many requests wait for an instance, by service. Raises RoutingError."""
        return await self._api.queued_requests()

    async def take_response_counts(self) -> Counter[CountKey] | None:
        """Return the answers counted since the previous call, as TrafficCounter defines. Raises RoutingError."""
        async with self._reloader.lock.shared():
            return await self._counters.take_response_counts()

    async def restore(self, services: list[RoutedService], endpoints: list[Endpoint]) -> dict[str, RoutedService | None]:
        async with self._reloader.lock.exclusive():
            alive = [endpoint for endpoint in endpoints if (endpoint.id, endpoint.start_id) not in self._dead_starts]
            requested = {service.name: _backend(service, alive) for service in services}
            rendered = await self._reloader.restore(requested)
            await self._maps.replace_all(rendered.maps)
            for backend in self._config.desired.values():
                await self._servers.synchronise(backend)
            desired = self._config.desired
        return {
            name: desired[name].service if name in desired else None
            for name, backend in requested.items()
            if desired.get(name) != backend
        }

    async def publish(self, service: RoutedService) -> None:
        async with self._locks[service.name]:
            validated = self._config.validate(service, self._reloader.pending_services())
            before = self._config.backend_config(service.name)
            if not self._reloader.can_apply_live(validated) or not await self._reloader.is_loaded():
                await self._reloader.reload(service)
            async with self._reloader.lock.shared():
                after = self._config.set_backend(self._config.backend_for(service))
                await self._maps.update(before, after, verify_all=True)

    async def unpublish(self, service: str) -> None:
        async with self._change(service):
            before = self._config.backend_config(service)
            self._config.remove_backend(service)
            await self._maps.update(before, None)
            await self._servers.remove_all(service)
            self._removed.pop(service, None)
        if self._reloader.loaded is not None and service in self._reloader.loaded.backends:
            self._reloader.reload_soon(service)

    async def admit(self, endpoint: Endpoint) -> None:
        service = endpoint.service
        async with self._locks[service]:
            async with self._reloader.lock.shared():
                backend = self._config.desired.get(service)
                if backend is None:
                    raise RoutingError(f"{endpoint.id} cannot be admitted: the gateway has no service {service}; publish it")
                self._refuse_dead(endpoint)
                before = self._config.backend_config(service)
                after = self._config.set_backend(backend.with_endpoint(endpoint))
                self._removed[service].discard(endpoint.id)
            if not self._reloader.can_apply_live(after):
                await self._reloader.reload(backend.service)
            async with self._reloader.lock.shared():
                await self._maps.update(before, after)
                await self._servers.enable(endpoint)
                if (endpoint.id, endpoint.start_id) in self._dead_starts:
                    await self._disable_start(service, endpoint.id, endpoint.start_id)
                self._refuse_dead(endpoint)
        self._update_checks_soon(service)

    async def withdraw(self, service: str, instance: str) -> None:
        async with self._change(service):
            self._remove_endpoint(service, instance)
            await self._servers.drain(service, instance)

    async def mark_dead(self, service: str, instance: str, start_id: str) -> None:
        self._dead_starts.add((instance, start_id))
        if self._has_other_start(service, instance, start_id):
            return
        try:
            await self._servers.disable(service, instance, urgent=True)
        finally:
            async with self._change(service):
                await self._disable_start(service, instance, start_id)

    async def force_close(self, service: str, instance: str) -> int:
        async with self._locks[service]:
            listings = await self._workers.read_servers(service)
            async with self._reloader.lock.shared():
                self._remove_endpoint(service, instance)
                await self._servers.disable(service, instance)
                await self._servers.close_sessions(service, instance)
                for listing in listings[1:]:
                    await self._servers.close_sessions_on(listing.worker, service, instance)
            return parse_endpoint_states(service, listings).get(instance, EndpointState("closed")).in_flight

    async def remove(self, service: str, instance: str) -> None:
        async with self._locks[service]:
            listings = await self._workers.read_servers(service)
            async with self._reloader.lock.shared():
                self._remove_endpoint(service, instance)
                await self._servers.remove(service, instance)
                for listing in listings[1:]:
                    server = listing.servers.get(service, {}).get(instance)
                    if server is not None and server.in_flight:
                        await self._servers.close_sessions_on(listing.worker, service, instance)
            self._removed[service].add(instance)
            self._workers.forget_checks(instance)
            self._dead_starts = {(id, start_id) for id, start_id in self._dead_starts if id != instance}
        self._update_checks_soon(service)

    async def observe(self, service: str) -> dict[str, EndpointState]:
        return self._without_removed(service, await self._workers.endpoint_states(service))

    async def observe_all(self) -> dict[str, dict[str, EndpointState]]:
        states = await self._workers.all_endpoint_states()
        return {service: self._without_removed(service, of_service) for service, of_service in states.items()}

    @asynccontextmanager
    async def _change(self, service: str) -> AsyncIterator[None]:
        async with self._locks[service], self._reloader.lock.shared():
            yield

    def _without_removed(self, service: str, states: dict[str, EndpointState]) -> dict[str, EndpointState]:
        removed = self._removed.get(service, set())
        return {instance: state for instance, state in states.items() if instance not in removed}

    def _remove_endpoint(self, service: str, instance: str) -> None:
        backend = self._config.desired.get(service)
        if backend is not None and instance in backend.endpoints:
            self._config.set_backend(backend.without(instance))

    async def _disable_start(self, service: str, instance: str, start_id: str) -> None:
        """Disable the dead instance, unless another start of it has been admitted since."""
        if not self._has_other_start(service, instance, start_id):
            self._remove_endpoint(service, instance)
            await self._servers.disable(service, instance)

    def _has_other_start(self, service: str, instance: str, start_id: str) -> bool:
        """Return whether the instance is admitted with another start than this one."""
        backend = self._config.desired.get(service)
        endpoint = backend.endpoints.get(instance) if backend else None
        return endpoint is not None and endpoint.start_id != start_id

    def _refuse_dead(self, endpoint: Endpoint) -> None:
        if (endpoint.id, endpoint.start_id) in self._dead_starts:
            started_at = endpoint.start_id.rpartition("@")[2]
            raise RoutingError(f"{endpoint.id} cannot be admitted: it died after it had started at {started_at}")

    def _update_checks_soon(self, service: str) -> None:
        """Schedule a reload if the worker's check policy is not the one that is desired now."""
        backend, loaded = self._config.backend_config(service), self._reloader.loaded
        present = loaded.backends.get(service) if loaded is not None else None
        if backend is not None and present is not None and present.check_policy != backend.check_policy:
            self._reloader.reload_soon(service)


def _backend(service: RoutedService, endpoints: list[Endpoint]) -> DesiredBackend:
    return DesiredBackend(service, {endpoint.id: endpoint for endpoint in endpoints if endpoint.service == service.name})
