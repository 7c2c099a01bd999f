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
from services.gateway.config.render import MAPS, BackendConfig
from services.gateway.lifecycle.config_state import ConfigState
from services.gateway.lifecycle.drift import SETTLE_SECONDS, find_drift
from services.gateway.lifecycle.fitting import fitting
from services.gateway.lifecycle.listener_retention import Bind, ListenerRetention
from services.gateway.lifecycle.liveness import probe_public_port
from services.gateway.runtime.counters import Counters
from services.gateway.runtime.runtime_api import RuntimeApi
from services.gateway.runtime.servers import Servers
from services.gateway.runtime.takeover import NewGateway, SocketTakeover
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
        self._kept = ListenerRetention(directory)
        self._keeper = ConfigState(directory, self._api, self._counters, self._kept)
        self._succession = SocketTakeover(directory)
        self._workers = Workers(self._api, self._keeper.lock, self._succession)
        self._servers = Servers(self._api, self._counters)
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._lost: set[tuple[str, str]] = set()
        self._forgotten: defaultdict[str, set[str]] = defaultdict(set)

    @property
    def name(self) -> str:
        return "gateway"

    async def configure(self, settings: GatewaySettings) -> None:
        """Prepare the files for these settings before the container starts. Raises RoutingError."""
        self._keeper.configure(settings)
        self._kept.start()

    async def status(self) -> dict[str, Any] | None:
        """Return facts about the running HAProxy; None if it does not answer.

        The facts are version, pid, uptime in seconds, connections, and the workers that were replaced.
        """
        try:
            async with self._keeper.lock.shared():
                workers = await self._workers.all()
                info = dict(
                    line.split(": ", 1) for line in (await self._api.query("show info")).splitlines() if ": " in line
                )
        except RoutingError:
            return None
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
        """Return the differences between desired state, files and worker, one sentence each.

        A difference that disappears within SETTLE_SECONDS is a change in progress and is left out. Raises RoutingError.
        """
        before = await self._find_drift()
        if not before:
            return []
        await asyncio.sleep(SETTLE_SECONDS)
        return [each for each in await self._find_drift() if each in before]

    async def _find_drift(self) -> list[str]:
        async with self._keeper.lock.shared():
            return await find_drift(self._keeper, self._servers)

    async def is_hung(self, patience: float) -> bool:
        """Return True if the gateway is unresponsive for `patience` seconds.

        An unresponsive gateway's master does not answer, and its public port accepts connections but sends nothing. A
        gateway that answers requests is not hung.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + patience
        while await self.status() is None:
            if await probe_public_port(self._keeper.settings.public_port) != "silent":
                return False
            if loop.time() >= until:
                return True
        return False

    async def wait_for_exit(self, within: float) -> bool:
        """Return True if the process ends, reloads or is absent; False after `within` seconds."""
        return await self._api.wait_for_exit(within)

    @asynccontextmanager
    async def takeover(self, id: str, settings: GatewaySettings) -> AsyncIterator[NewGateway]:
        """Reserve the gateway while another HAProxy takes over from the one in the container `id`.

        In the block the files are those of `settings`, and the gateway is neither changed nor observed otherwise. Raises
        RoutingError.
        """
        await self._keeper.wait_until_queue_is_empty()
        async with self._keeper.lock.exclusive():
            with self._keeper.hand_over_to(settings) as has_read:
                await self._counters.before_reload()
                yield NewGateway(id, self._api, self._succession, has_read)

    @property
    def takeovers(self) -> SocketTakeover:
        """Sockets of the gateways that another container took over from."""
        return self._succession

    @property
    def listener_retention(self) -> set[Bind]:
        """Addresses and ports that refuse no connection while the gateway is away for a moment."""
        return self._kept.binds

    @property
    def bridge_port(self) -> int | None:
        """A port on the bridge's address at which the present worker answers; None if it has none."""
        loaded = self._keeper.loaded
        return min((service.service.internal_port for service in loaded.blocks.values()), default=None) if loaded else None

    async def queued_requests(self) -> dict[str, int]:
        """Return how many requests wait for an instance, by service. Raises RoutingError."""
        return await self._api.queued_requests()

    async def take_response_counts(self) -> Counter[CountKey] | None:
        """Return the answers counted since the previous call, as TrafficCounter defines.

        Raises RoutingError.
        """
        async with self._keeper.lock.shared():
            return await self._counters.take_response_counts()

    async def close(self) -> None:
        await self._keeper.close()
        await self._workers.close()
        await asyncio.to_thread(self._kept.close)

    async def restore(self, services: list[RoutedService], endpoints: list[Endpoint]) -> dict[str, RoutedService | None]:
        async with self._keeper.lock.exclusive():
            alive = [endpoint for endpoint in endpoints if (endpoint.id, endpoint.start_id) not in self._lost]
            asked = {
                service.name: DesiredBackend(
                    service, {endpoint.id: endpoint for endpoint in alive if endpoint.service == service.name}
                )
                for service in services
            }
            self._keeper.desired = fitting(asked, self._keeper.desired, self._keeper.render)
            rendered = self._keeper.render(self._keeper.desired)
            if await self._keeper.config_digest() != rendered.shape:
                await self._keeper.reload_now()
            else:
                self._keeper.write()
                self._keeper.has_read(rendered)
            for name in MAPS:
                await self._servers.set_map(name, rendered.maps[name])
            for wanted in self._keeper.desired.values():
                await self._sync_servers(wanted)
            fit = self._keeper.desired
            return {name: fit[name].service if name in fit else None for name in asked if fit.get(name) != asked[name]}

    async def publish(self, service: RoutedService) -> None:
        async with self._locks[service.name]:
            block = self._keeper.validate_service(service)
            before = self._keeper.block(service.name)
            if not self._can_apply_live(block) or not await self._keeper.is_loaded():
                await self._keeper.reload(service)
            async with self._keeper.lock.shared():
                present = self._keeper.desired.get(service.name)
                block = self._keeper.set_backend(DesiredBackend(service, present.endpoints if present else {}))
                await self._set_maps(before, block, wholly=True)

    async def unpublish(self, service: str) -> None:
        async with self._change(service):
            before = self._keeper.block(service)
            self._keeper.remove_backend(service)
            await self._set_maps(before, None)
            for instance in await self._servers.list(service):
                await self._servers.remove(service, instance)
            self._forgotten.pop(service, None)
        if self._keeper.loaded is not None and service in self._keeper.loaded.blocks:
            self._keeper.reload_soon(service)

    async def admit(self, endpoint: Endpoint) -> None:
        service = endpoint.service
        async with self._locks[service]:
            async with self._keeper.lock.shared():
                wanted = self._keeper.desired.get(service)
                if wanted is None:
                    raise RoutingError(f"The gateway was not told of the service {service}")
                self._refuse_lost(endpoint)
                before = self._keeper.block(service)
                block = self._keeper.set_backend(wanted.with_endpoint(endpoint))
                self._forgotten[service].discard(endpoint.id)
            if not self._can_apply_live(block):
                await self._keeper.reload(wanted.service)
            async with self._keeper.lock.shared():
                await self._set_maps(before, block)
                await self._servers.enable(endpoint)
                if (endpoint.id, endpoint.start_id) in self._lost:
                    await self._fail_endpoint(service, endpoint.id, endpoint.start_id)
                self._refuse_lost(endpoint)
        self._schedule_check_reload(service)

    async def withdraw(self, service: str, instance: str) -> None:
        async with self._change(service):
            self._remove_endpoint(service, instance)
            await self._servers.drain(service, instance)

    async def mark_dead(self, service: str, instance: str, start_id: str) -> None:
        self._lost.add((instance, start_id))
        wanted = self._keeper.desired.get(service)
        endpoint = wanted.endpoints.get(instance) if wanted else None
        if endpoint is not None and endpoint.start_id != start_id:
            return  # a newer start of the instance has been admitted
        try:
            await self._servers.disable(service, instance, urgent=True)
        finally:
            async with self._change(service):
                await self._fail_endpoint(service, instance, start_id)

    async def force_close(self, service: str, instance: str) -> int:
        async with self._locks[service]:
            listings = await self._workers.read_servers(service)
            async with self._keeper.lock.shared():
                self._remove_endpoint(service, instance)
                await self._servers.disable(service, instance)
                await self._servers.close_sessions(service, instance)
                for listing in listings[1:]:
                    await self._servers.close_sessions_on(listing.worker, service, instance)
            return parse_endpoint_states(service, listings).get(instance, EndpointState("closed")).in_flight

    async def remove(self, service: str, instance: str) -> None:
        async with self._change(service):
            self._remove_endpoint(service, instance)
            await self._servers.remove(service, instance)
            self._forgotten[service].add(instance)
            self._lost = {(id, start_id) for id, start_id in self._lost if id != instance}
        self._schedule_check_reload(service)

    async def observe(self, service: str) -> dict[str, EndpointState]:
        endpoint_states = parse_endpoint_states(service, await self._workers.read_servers(service))
        return {
            instance: endpoint_state
            for instance, endpoint_state in endpoint_states.items()
            if instance not in self._forgotten[service]
        }

    @asynccontextmanager
    async def _change(self, service: str) -> AsyncIterator[None]:
        async with self._locks[service], self._keeper.lock.shared():
            yield

    def _remove_endpoint(self, service: str, instance: str) -> None:
        wanted = self._keeper.desired.get(service)
        if wanted is not None and instance in wanted.endpoints:
            self._keeper.set_backend(wanted.without(instance))

    async def _fail_endpoint(self, service: str, instance: str, start_id: str) -> None:
        """Disable the dead instance, unless another start of it has been admitted since."""
        wanted = self._keeper.desired.get(service)
        endpoint = wanted.endpoints.get(instance) if wanted else None
        if endpoint is None or endpoint.start_id == start_id:
            self._remove_endpoint(service, instance)
            await self._servers.disable(service, instance)

    def _refuse_lost(self, endpoint: Endpoint) -> None:
        if (endpoint.id, endpoint.start_id) in self._lost:
            raise RoutingError(f"{endpoint.id} died after it had started at {endpoint.start_id.rpartition('@')[2]}")

    def _can_apply_live(self, block: BackendConfig) -> bool:
        """Return whether the present worker can apply `block` without a reload."""
        return self._keeper.loaded is not None and self._keeper.loaded.can_apply_live(block)

    def _schedule_check_reload(self, service: str) -> None:
        """Schedule a reload if the worker's check policy is less strict than needed now."""
        block, loaded = self._keeper.block(service), self._keeper.loaded
        known = loaded.blocks.get(service) if loaded is not None else None
        if block is not None and known is not None and known.check_policy != block.check_policy:
            self._keeper.reload_soon(service)

    async def _set_maps(self, before: BackendConfig | None, after: BackendConfig | None, *, wholly: bool = False) -> None:
        """Set the maps in every worker; only the present worker must succeed.

        Replaced workers route by maps as well. `wholly` verifies every entry, not only those that differ.
        """
        changes = []
        for name in MAPS:
            old, new = (block.maps[name] if block else {} for block in (before, after))
            gone = old.keys() - new.keys()
            changed = {key: value for key, value in new.items() if wholly or old.get(key) != value}
            if gone or changed:
                changes.append((name, changed, gone))
        for name, changed, gone in changes:
            await self._servers.set_map(name, changed, gone)
        if not changes:
            return
        for worker in (await self._workers.all())[1:]:
            for name, changed, gone in changes:
                try:
                    await self._servers.set_map(name, changed, gone, worker.address)
                except RoutingError:
                    continue  # a replaced worker may end at any time

    async def _sync_servers(self, wanted: DesiredBackend) -> None:
        """Make the worker's servers equal to `wanted`, without touching those that already are."""
        listed = await self._servers.list(wanted.name)
        for endpoint in wanted.endpoints.values():
            here = listed.get(endpoint.id)
            if here is None or here.state != "admitted" or (here.address, here.port) != (endpoint.address, endpoint.port):
                await self._servers.enable(endpoint)
        for instance, here in listed.items():
            if instance not in wanted.endpoints and here.state == "admitted":
                await self._servers.drain(wanted.name, instance)
