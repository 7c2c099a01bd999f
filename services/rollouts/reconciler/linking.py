"""Links between services, which the routers must serve before a deployment that adds them is done."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from services.rollouts.planner.steps import Failed
from services.rollouts.reconciler.service_state import ServiceState
from services.rollouts.state.revision_spec import revision_spec
from services.rollouts.state.routing_config import linked_services
from services.rollouts.state.service_snapshot import ServiceSnapshot
from services.store.database import Store

REASON = "gateway_unverified"


class LinkedServices:
    """The services that other services name in their `links`, and the services that wait for these.

    The gateway answers for linked services by name.
    """

    def __init__(self, store: Store, states: Mapping[str, ServiceState], enqueue: Callable[[str], None]) -> None:
        self._store = store
        self._states = states
        self._enqueue = enqueue
        self._refreshing = asyncio.Lock()
        self._waiting: set[str] = set()
        """Services whose deployment waits until the routers answer for other services by name."""
        self.linked: frozenset[str] = frozenset()

    async def refresh(self) -> None:
        """Reload the set of linked services, and enqueue the services that entered or left the set."""
        async with self._refreshing:  # otherwise an earlier read that ends later would restore an old set
            before, self.linked = self.linked, frozenset(await self._store.read(linked_services))
        for name in (before ^ self.linked) & self._states.keys():
            self._enqueue(name)

    def unserved(self, now: float) -> dict[str, str | None]:
        """Return the published services that the routers do not serve by name → the error if it persists."""
        return {
            name: state.router_errors.of_publication(now)
            for name, state in self._states.items()
            if state.published is not None and not state.published.linked
        }

    def wait(self, name: str, links: frozenset[str], now: float) -> None:
        """Enqueue the service at every publication of a service until it awaits no link."""
        self._waiting.discard(name)
        if links:
            self._waiting.add(name)
            if links - self.unserved(now).keys():  # a link is served since the observation
                self._enqueue(name)

    def publication_changed(self) -> None:
        """Enqueue the services that wait for links, because the routers' answers may have changed."""
        for name in self._waiting:
            self._enqueue(name)


def unserved_links(snapshot: ServiceSnapshot, unserved: Mapping[str, str | None]) -> dict[str, str | None]:
    """Return those of the `unserved` links that the desired revision has and the current one lacks."""
    if snapshot.desired_revision is None or snapshot.desired_revision is snapshot.current_revision:
        return {}
    before = revision_spec(snapshot.current_revision).links if snapshot.current_revision is not None else []
    added = [name for name in revision_spec(snapshot.desired_revision).links if name not in before]
    return {name: unserved[name] for name in added if name in unserved}


def failed_by_routers(error: str | None, links: Mapping[str, str | None]) -> Failed | None:
    """Return the failure of a deployment if the routers have failed it for too long, or None.

    `error` is the routers' persistent error for the service or its instances. `links` are the links not served yet.
    """
    if error is not None:
        return Failed(REASON, f"the gateway could not be updated: {error}")
    refused = [f"{name}: {error}" for name, error in links.items() if error is not None]
    return Failed(REASON, f"the gateway cannot serve the link to {refused[0]}") if refused else None
