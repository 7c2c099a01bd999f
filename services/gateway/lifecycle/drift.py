"""Comparison of the gateway's worker and files with the desired configuration."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping

from services.gateway.config.model import DesiredBackend
from services.gateway.config.render import MAPS
from services.gateway.lifecycle.config_state import ConfigState
from services.gateway.lifecycle.reload import Reloader
from services.gateway.runtime.maps import Maps
from services.gateway.runtime.servers import Servers
from services.gateway.runtime.workers import BackendServer

SETTLE_SECONDS = 0.5
"""Seconds within which a change in progress is complete."""

LAZY_MAPS = frozenset({"checks", "headers"})
"""Maps that keep the checks of an instance while it drains and until the next reload.

No request is routed by these maps.
"""


class DriftDetector:
    """Comparison that reads the worker's file, servers and maps, and changes nothing."""

    def __init__(self, config: ConfigState, reloader: Reloader, servers: Servers, maps: Maps) -> None:
        self._config = config
        self._reloader = reloader
        self._servers = servers
        self._maps = maps

    async def find(self) -> list[str]:
        """Return the differences between desired state, files and worker, one sentence each.

        A difference that disappears within SETTLE_SECONDS is a change in progress and is left out. Raises RoutingError.
        """
        before = await self.compare()
        if not before:
            return []
        await asyncio.sleep(SETTLE_SECONDS)
        return [each for each in await self.compare() if each in before]

    async def compare(self) -> list[str]:
        """Return the differences at this moment, changes in progress included. Raises RoutingError."""
        async with self._reloader.lock.shared():
            rendered = self._config.render(self._config.desired)
            found = [f"{name} was changed or removed by another program" for name in self._config.changed_files()]
            if await self._reloader.loaded_digest() != rendered.static_digest:
                found.append("the worker has not loaded the present haproxy.cfg")
            listed = await self._servers.all()
            for service, backend in self._config.desired.items():
                found += _server_differences(backend, listed.get(service, {}))
            for name in MAPS:
                found += _map_differences(name, await self._maps.entries(name), rendered.maps[name])
        return found


def _server_differences(backend: DesiredBackend, listed: Mapping[str, BackendServer]) -> Iterator[str]:
    for endpoint in backend.endpoints.values():
        server = listed.get(endpoint.id)
        if server is None:
            yield f"the worker does not know {endpoint.id}"
        elif not server.has_address_of(endpoint):
            current, desired = f"{server.address}:{server.port}", f"{endpoint.address}:{endpoint.port}"
            yield f"the worker has {endpoint.id} at {current}, not at {desired}"
        elif server.state != "admitted":
            yield f"the worker does not route to {endpoint.id}, which is {server.state}"
    for id, server in listed.items():
        if id not in backend.endpoints and server.state == "admitted":
            yield f"the worker routes to {id}, which is not in the file"


def _map_differences(name: str, current: Mapping[str, str], desired: Mapping[str, str]) -> Iterator[str]:
    compared = current.keys() & desired.keys() if name in LAZY_MAPS else current.keys()
    keys = sorted(key for key in {*compared, *desired} if current.get(key) != desired.get(key))
    if keys:
        yield f"the worker's map {name} differs from the file: {', '.join(keys[:5])}"
