"""Notifications for the controller: the engine's events, and a poll for changes without an event."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import replace

import structlog

from services.engine.port import ContainerView, EngineError, EngineEvent
from services.rollouts.reconciler.ports import Ports
from services.rollouts.reconciler.status_publisher import StatusPublisher
from services.rollouts.state.recognition import container_ids, is_recognized, unknown_containers, unrecognized
from services.routing.port import EndpointState, RoutingError

log = structlog.get_logger()
ROUTER_POLL = 2.0
"""Seconds between two polls of the routers, because changes of their own checks cause no notification."""
ENGINE_RESYNC = 15.0
States = Mapping[tuple[str, str], EndpointState]
"""States of a service's endpoints by router and instance."""


class Watcher:
    """The watcher of the engine and the routers. It enqueues the services about which something changed.

    `services` are the names of the services that the controller looks after.
    """

    def __init__(
        self, ports: Ports, status: StatusPublisher, services: AbstractSet[str], enqueue: Callable[[str], None]
    ) -> None:
        self._ports = ports
        self._status = status
        self._services = services
        self._enqueue = enqueue

    async def run(self) -> None:
        """Watch the engine and the routers until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._forward_events(tasks))
            tasks.create_task(self._resync_engine())
            tasks.create_task(self._poll_routers())

    async def _forward_events(self, tasks: asyncio.TaskGroup) -> None:
        """Enqueue the services of the engine's events.

        Deaths are handled concurrently, so that none waits for a gateway change of another service.
        """
        async for event in self._ports.engine.events():
            if event.kind == "reconnected":
                for service in list(self._services):
                    self._enqueue(service)
            elif event.kind in ("die", "disconnect"):
                tasks.create_task(self._instance_died(event))
            else:
                self._enqueue(event.service)

    async def _instance_died(self, event: EngineEvent) -> None:
        """Mark an instance whose container died or lost its network as dead in every router, then enqueue.

        No router may send a request to this start any more. This happens before anything is planned. The store decides
        whether a container with another name is the instance's, or one with copied labels.
        """
        if event.renamed and not is_recognized(
            event.instance, event.container_id, await self._ports.store.read(container_ids), renamed=True
        ):
            return
        for router in self._ports.routers:
            try:
                await router.mark_dead(event.service, event.instance, event.start_id)
            except RoutingError as error:
                log.warning("could not withdraw a dead instance", instance=event.instance, error=str(error))
        self._enqueue(event.service)

    async def _resync_engine(self) -> None:
        before: dict[str, ContainerView] = {}
        while True:
            await asyncio.sleep(ENGINE_RESYNC)
            try:
                now = {view.container_id: view for view in await self._ports.engine.observe()}
            except EngineError:
                continue  # the services' worker tasks report the error
            unknown = unrecognized(now.values(), await self._ports.store.read(container_ids))
            self._status.report_unknown(unknown_containers(unknown))
            changed = {id for id in {*before, *now} if before.get(id) != now.get(id)}
            for service in {(now.get(id) or before[id]).service for id in changed}:
                self._enqueue(service)
            before = now

    async def _poll_routers(self) -> None:
        before: dict[str, States] = {}
        while True:
            await asyncio.sleep(ROUTER_POLL)
            try:
                states = await self._observe_routers()
            except RoutingError as error:
                log.warning("a router could not be observed", error=str(error))
                continue
            self._status.update_endpoints(
                (id, state) for of_service in states.values() for (_, id), state in of_service.items()
            )
            now = {service: _without_in_flight(of_service) for service, of_service in states.items()}
            for service in self._services & {*before, *now}:
                if now.get(service) != before.get(service):
                    self._enqueue(service)
            before = now

    async def _observe_routers(self) -> dict[str, States]:
        """Return service → states by router and instance, from one query of each router."""
        states: dict[str, States] = {}
        for router in self._ports.routers:
            for service, endpoint_states in (await router.observe_all()).items():
                of_router = {(router.name, id): state for id, state in endpoint_states.items()}
                states[service] = {**states.get(service, {}), **of_router}
        return states


def _without_in_flight(states: States) -> States:
    return {key: replace(state, in_flight=0) if state.in_flight else state for key, state in states.items()}
