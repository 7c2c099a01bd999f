"""Changes to the servers of HAProxy's current worker, each verified by reading it back."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from services.gateway.config.model import DesiredBackend
from services.gateway.config.names import live_backend, server_path
from services.gateway.config.render import server_line
from services.gateway.runtime.counters import Counters
from services.gateway.runtime.runtime_api import CommandRejected, OldMasterGone, RuntimeApi
from services.gateway.runtime.workers import BackendServer, Worker, parse_servers
from services.routing.port import Endpoint, RoutingError

RELEASE_TIMEOUT = 5.0
"""Seconds that the connections of a server in maintenance may take to end by themselves.

A process that ends closes its connections. For an instance that lost its network, TCP keepalive ends them within 4 s, and
GETs are sent to another instance; but a request that never arrived would wait for `request_timeout`.
"""
REMOVAL_INTERVAL = 0.05
"""Seconds between two attempts to remove a server."""
_ABSENT = ("No such server.", "No such backend.")


class Servers:
    """Servers of the current worker; all methods are idempotent and raise RoutingError."""

    def __init__(self, api: RuntimeApi, counters: Counters) -> None:
        self._api = api
        self._counters = counters

    async def list(self, service: str) -> dict[str, BackendServer]:
        """Return instance → server; empty for a service that the worker does not know."""
        answer = await self._api.query(f"show servers state {live_backend(service)}")
        return parse_servers(answer).get(service, {})

    async def all(self) -> dict[str, dict[str, BackendServer]]:
        """Return service → instance → server, of every service that the worker knows."""
        return parse_servers(await self._api.query("show servers state"))

    async def synchronise(self, backend: DesiredBackend) -> None:
        """Make the worker's servers equal to `backend`, without changing those that already are."""
        listed = await self.list(backend.name)
        for endpoint in backend.endpoints.values():
            server = listed.get(endpoint.id)
            if server is None or server.state != "admitted" or not server.has_address_of(endpoint):
                await self.enable(endpoint)
        for instance, server in listed.items():
            if instance not in backend.endpoints and server.state == "admitted":
                await self.drain(backend.name, instance)

    async def enable(self, endpoint: Endpoint) -> None:
        """Make the worker send new requests to the endpoint."""
        path = server_path(endpoint.service, endpoint.id)
        server = (await self.list(endpoint.service)).get(endpoint.id)
        if server is not None and not server.has_address_of(endpoint):
            await self.remove(endpoint.service, endpoint.id)
            server = None
        if server is None:
            options = server_line(endpoint).removeprefix(f"{endpoint.id} ")
            await self._api.execute(f"add server {path} {options}")
            if not endpoint.healthcheck.disable:
                await self._api.execute(f"enable health {path}")
            await self._api.execute(f"enable server {path}")
        elif server.state != "admitted":
            await self._api.execute(f"set server {path} state ready")
        server = (await self.list(endpoint.service)).get(endpoint.id)
        if server is None or server.state != "admitted":
            raise RoutingError(f"{endpoint.id} is not admitted: the gateway does not list it as ready after the command")

    async def drain(self, service: str, instance: str) -> None:
        """Stop new requests to the instance; an instance that is already disabled stays disabled."""
        server = (await self.list(service)).get(instance)
        if server is None or server.state != "admitted":
            return
        await self._set_state(service, instance, "drain")
        server = (await self.list(service)).get(instance)
        if server is not None and server.state == "admitted":
            raise RoutingError(f"{instance} is not withdrawn: the gateway lists it as ready after the command")

    async def disable(self, service: str, instance: str, *, urgent: bool = False) -> None:
        """Stop all requests to the instance, including retries and idle connections.

        An `urgent` command is sent immediately and is not read back.
        """
        await self._set_state(service, instance, "maint", urgent=urgent)
        server = None if urgent else (await self.list(service)).get(instance)
        if server is not None and server.state != "closed":
            raise RoutingError(f"{instance} is not disabled: the gateway lists it as {server.state} after the command")

    async def close_sessions(self, service: str, instance: str) -> None:
        """End the instance's requests in flight."""
        await self._execute_if_present(f"shutdown sessions server {server_path(service, instance)}")

    async def close_sessions_on(self, worker: Worker, service: str, instance: str) -> None:
        """End the instance's requests in flight on a replaced worker.

        The servers of such a worker take no commands any more, but its sessions do.
        """
        its_server = f"be={live_backend(service)} srv={instance} "
        with suppress(OldMasterGone):
            for line in (await self._api.query("show sess", worker.address)).splitlines():
                if its_server in line:
                    await self._api.query(f"shutdown session {line.split(':')[0]}", worker.address)

    async def remove(self, service: str, instance: str) -> None:
        """Remove the instance from the worker's servers, and end the sessions that it leaves open."""
        if instance not in await self.list(service):
            return
        await self._set_state(service, instance, "maint")
        await self._counters.before_removal(service, instance)
        try:
            await self._delete(service, instance)
        except CommandRejected:
            await self.close_sessions(service, instance)
            await self._delete(service, instance)
        if instance in await self.list(service):
            raise RoutingError(f"{instance} is not removed: the gateway lists it after the command")

    async def remove_all(self, service: str) -> None:
        """Remove all instances of the service from the worker's servers."""
        for instance in await self.list(service):
            await self.remove(service, instance)

    async def _delete(self, service: str, instance: str) -> None:
        """Delete a server in maintenance as soon as it has no connection.

        Raises CommandRejected if it still has one after RELEASE_TIMEOUT seconds. HAProxy's `wait … srv-removable` is not
        usable here: the master ends the input of each command that it passes on, which interrupts the wait.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + RELEASE_TIMEOUT
        while True:
            try:
                await self._execute_if_present(f"del server {server_path(service, instance)}")
            except CommandRejected:
                if loop.time() > deadline:
                    raise
                await asyncio.sleep(REMOVAL_INTERVAL)
            else:
                return

    async def _set_state(self, service: str, instance: str, state: str, *, urgent: bool = False) -> None:
        await self._execute_if_present(f"set server {server_path(service, instance)} state {state}", urgent=urgent)

    async def _execute_if_present(self, command: str, *, urgent: bool = False) -> None:
        try:
            await self._api.execute(command, urgent=urgent)
        except CommandRejected as rejection:
            if rejection.reason not in _ABSENT:
                raise
