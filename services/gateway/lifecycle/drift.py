"""Comparison of the gateway's worker and files with the desired configuration."""

from __future__ import annotations

from collections.abc import Mapping

from services.gateway.config.model import DesiredBackend
from services.gateway.config.render import MAPS
from services.gateway.lifecycle.config_state import ConfigState
from services.gateway.runtime.servers import Servers
from services.gateway.runtime.workers import Server

SETTLE_SECONDS = 0.5
"""Seconds within which a change in progress is complete."""

LAZY_MAPS = frozenset({"checks", "headers"})
"""Maps that keep the checks of an instance while it drains and until the next reload.

No request is routed by these maps.
"""


async def find_drift(keeper: ConfigState, servers: Servers) -> list[str]:
    """Return a sentence for each difference; empty if there is none. Raises RoutingError."""
    found = [f"{name} was changed or removed by somebody else" for name in keeper.changed_files()]
    rendered = keeper.render(keeper.desired)
    if await keeper.config_digest() != rendered.shape:
        found.append("the worker has not read the present haproxy.cfg")
    listed = await servers.all()
    for service, wanted in keeper.desired.items():
        found += _of_service(wanted, listed.get(service, {}))
    for name in MAPS:
        there, entries = await servers.entries(name), rendered.maps[name]
        asked = there.keys() & entries.keys() if name in LAZY_MAPS else there.keys()
        keys = sorted(key for key in {*asked, *entries} if there.get(key) != entries.get(key))
        if keys:
            found.append(f"the worker's map of {name} is not the file's: {', '.join(keys[:5])}")
    return found


def _of_service(wanted: DesiredBackend, listed: Mapping[str, Server]) -> list[str]:
    found = []
    for endpoint in wanted.endpoints.values():
        here = listed.get(endpoint.id)
        if here is None:
            found.append(f"the worker does not know {endpoint.id}")
        elif (here.address, here.port) != (endpoint.address, endpoint.port):
            found.append(
                f"the worker has {endpoint.id} at {here.address}:{here.port}, not at {endpoint.address}:{endpoint.port}"
            )
        elif here.state != "admitted":
            found.append(f"the worker sends nothing to {endpoint.id}, which is {here.state}")
    for id, here in listed.items():
        if id not in wanted.endpoints and here.state == "admitted":
            found.append(f"the worker sends requests to {id}, which is not in the file")
    return found
