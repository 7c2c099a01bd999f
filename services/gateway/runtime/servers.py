"""Changes to one worker's servers and maps, each verified by reading it back."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress

from services.gateway.config.model import INSIDE, backend_of
from services.gateway.config.render import server_line
from services.gateway.runtime.counters import Counters
from services.gateway.runtime.runtime_api import CURRENT, CommandRejected, OldMasterGone, RuntimeApi
from services.gateway.runtime.workers import Server, Worker, parse_servers
from services.routing.port import Endpoint, RoutingError

REMOVABLE = 2.0
"""Seconds that a server in maintenance may take to release its connections."""
BATCH = 8000
"""Maximum bytes of one command; HAProxy's buffer has 16 KiB."""
_ABSENT = "No such server."
_SPECIAL = re.compile(r"([\\; ])")


class Servers:
    """Servers of the present worker; all methods are idempotent and raise RoutingError."""

    def __init__(self, api: RuntimeApi, counters: Counters) -> None:
        self._api = api
        self._counters = counters

    async def list(self, service: str) -> dict[str, Server]:
        """Return instance → server; empty for a service that the worker does not know."""
        answer = await self._api.query(f"show servers state {backend_of(service)}")
        return parse_servers(answer).get(service, {})

    async def all(self) -> dict[str, dict[str, Server]]:
        """Return service → instance → server, of every service that the worker knows."""
        return parse_servers(await self._api.query("show servers state"))

    async def entries(self, name: str) -> dict[str, str]:
        """Return the entries of the map `name`; empty if the worker never read the map."""
        return await self._map(f"{INSIDE}/{name}.map", CURRENT) or {}

    async def enable(self, endpoint: Endpoint) -> None:
        """Make the worker send new requests to the endpoint."""
        path = f"{backend_of(endpoint.service)}/{endpoint.id}"
        here = (await self.list(endpoint.service)).get(endpoint.id)
        if here is not None and (here.address, here.port) != (endpoint.address, endpoint.port):
            await self.remove(endpoint.service, endpoint.id)
            here = None
        if here is None:
            words = server_line(endpoint).removeprefix(f"{endpoint.id} ")
            await self._api.execute(f"add server {path} {words}")
            if not endpoint.healthcheck.disable:
                await self._api.execute(f"enable health {path}")
            await self._api.execute(f"enable server {path}")
        elif here.state != "admitted":
            await self._api.execute(f"set server {path} state ready")
        here = (await self.list(endpoint.service)).get(endpoint.id)
        if here is None or here.state != "admitted":
            raise RoutingError(f"The gateway does not list {endpoint.id} as ready although it was told to")

    async def drain(self, service: str, instance: str) -> None:
        """Stop new requests to the instance; an instance that is already disabled stays disabled."""
        here = (await self.list(service)).get(instance)
        if here is None or here.state != "admitted":
            return
        await self._set(service, instance, "drain")
        here = (await self.list(service)).get(instance)
        if here is not None and here.state == "admitted":
            raise RoutingError(f"The gateway still lists {instance} as ready although it was told to drain it")

    async def disable(self, service: str, instance: str, *, urgent: bool = False) -> None:
        """Stop all requests to the instance, including retries and idle connections.

        An `urgent` command is sent immediately and is not read back.
        """
        await self._set(service, instance, "maint", urgent=urgent)
        here = None if urgent else (await self.list(service)).get(instance)
        if here is not None and here.state != "closed":
            raise RoutingError(f"The gateway does not list {instance} as out although it was told to")

    async def close_sessions(self, service: str, instance: str) -> None:
        """End the instance's requests in flight."""
        await self._unless_absent(f"shutdown sessions server {backend_of(service)}/{instance}")

    async def close_sessions_on(self, worker: Worker, service: str, instance: str) -> None:
        """End the instance's requests in flight on a replaced worker.

        The servers of such a worker take no commands any more, but its sessions do.
        """
        here = f"be={backend_of(service)} srv={instance} "
        with suppress(OldMasterGone):
            for line in (await self._api.query("show sess", worker.address)).splitlines():
                if here in line:
                    await self._api.query(f"shutdown session {line.split(':')[0]}", worker.address)

    async def remove(self, service: str, instance: str) -> None:
        """Remove the instance from the worker's servers."""
        path = f"{backend_of(service)}/{instance}"
        if instance not in await self.list(service):
            return
        await self._set(service, instance, "maint")
        await self._counters.before_removal(service, instance)
        try:
            await self._unless_absent(f"del server {path}")
        except CommandRejected:
            await self._api.execute(f"wait {REMOVABLE:g}s srv-removable {path}", timeout=REMOVABLE + 5)
            await self._unless_absent(f"del server {path}")
        if instance in await self.list(service):
            raise RoutingError(f"The gateway still lists {instance} although it was told to forget it")

    async def set_map(
        self, name: str, wanted: Mapping[str, str], gone: Collection[str] | None = None, worker: str = CURRENT
    ) -> None:
        """Set these entries of a map and delete those of `gone` (None: all others).

        A map that the worker never read is left alone.
        """
        file = f"{INSIDE}/{name}.map"
        present = await self._map(file, worker)
        if present is None:
            return
        new = {key: value for key, value in wanted.items() if key not in present}
        for lines in _batches(new):
            await self._api.execute(f"add map {file} <<\n{lines}", worker)
        other = [key for key, value in wanted.items() if present.get(key, value) != value]
        for key in other:
            await self._api.execute(f"set map {file} {_escaped(key)} {_escaped(wanted[key])}", worker)
        surplus = [key for key in present if key not in wanted and (gone is None or key in gone)]
        for key in surplus:
            await self._api.execute(f"del map {file} {_escaped(key)}", worker)
        if new or other or surplus:
            present = await self._map(file, worker) or {}
        if any(present.get(key) != value for key, value in wanted.items()) or any(key in present for key in surplus):
            raise RoutingError(f"The gateway's map of {name} is not what it was told to be")

    async def _map(self, file: str, worker: str) -> dict[str, str] | None:
        answer = await self._api.query(f"show map {file}", worker)
        lines = [line.split(" ", 2) for line in answer.splitlines() if line.startswith("0x")]
        if not lines and answer.strip():
            return None
        return {key: value for _, key, value in lines}

    async def _set(self, service: str, instance: str, state: str, *, urgent: bool = False) -> None:
        await self._unless_absent(f"set server {backend_of(service)}/{instance} state {state}", urgent=urgent)

    async def _unless_absent(self, command: str, *, urgent: bool = False) -> None:
        try:
            await self._api.execute(command, urgent=urgent)
        except CommandRejected as refusal:
            if refusal.words not in (_ABSENT, "No such backend."):
                raise


def _batches(entries: Mapping[str, str]) -> Iterator[str]:
    """Return the entries as lines, in batches that HAProxy takes in one command."""
    batch = ""
    for key, value in entries.items():
        line = f"{key} {value}\n"
        if batch and len(batch) + len(line) > BATCH:
            yield batch
            batch = ""
        batch += line
    if batch:
        yield batch


def _escaped(word: str) -> str:
    """Escape a word of a command: blanks, `;` and the backslash are special to HAProxy."""
    return _SPECIAL.sub(r"\\\1", word)
