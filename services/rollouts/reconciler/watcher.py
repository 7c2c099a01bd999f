"""Notifications for the controller: the engine's events, and a poll for changes without an event."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from dataclasses import replace
from typing import Any, Protocol

import structlog

from services.engine.port import ContainerView, Engine, EngineError
from services.routing.port import EndpointState, Router, RoutingError

log = structlog.get_logger()
ROUTER_POLL = 2.0
"""Seconds between two polls of the routers, because changes of their own checks cause no notification."""
ENGINE_RESYNC = 15.0


class EventSink(Protocol):
    """The methods of the controller that receive notifications."""

    def enqueue(self, service: str) -> None: ...
    def services(self) -> list[str]: ...
    def instance_died(self, service: str, instance: str, start_id: str) -> Coroutine[Any, Any, None]: ...
    def update_in_flight(self, in_flight: dict[str, int]) -> None: ...
    def report_unknown(self, instances: list[str]) -> None: ...
    async def known_instance_ids(self) -> set[str]: ...


async def watch(engine: Engine, routers: Sequence[Router], loop: EventSink) -> None:
    """Watch the engine and the routers until cancelled."""
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(_events(engine, loop, tasks))
        tasks.create_task(_resync_engine(engine, loop))
        tasks.create_task(_poll_routers(routers, loop))


async def _events(engine: Engine, loop: EventSink, tasks: asyncio.TaskGroup) -> None:
    """Forward the engine's events.

    Deaths are handled concurrently, so that none waits for a gateway change of another service.
    """
    async for event in engine.events():
        if event.kind == "reconnected":
            for service in loop.services():
                loop.enqueue(service)
        elif event.kind == "die":
            tasks.create_task(loop.instance_died(event.service, event.instance, event.start_id))
        else:
            loop.enqueue(event.service)


async def _resync_engine(engine: Engine, loop: EventSink) -> None:
    before: dict[str, ContainerView] = {}
    while True:
        await asyncio.sleep(ENGINE_RESYNC)
        try:
            now = {view.instance: view for view in await engine.observe()}
        except EngineError:
            continue  # the services' worker tasks report the error
        loop.report_unknown(sorted(set(now) - await loop.known_instance_ids()))
        changed = {id for id in {*before, *now} if before.get(id) != now.get(id)}
        for service in {(now.get(id) or before[id]).service for id in changed}:
            loop.enqueue(service)
        before = now


async def _poll_routers(routers: Sequence[Router], loop: EventSink) -> None:
    before: dict[tuple[str, str], EndpointState] = {}
    while True:
        await asyncio.sleep(ROUTER_POLL)
        services = loop.services()
        now: dict[tuple[str, str], EndpointState] = {}
        in_flight: dict[str, int] = {}
        whose: dict[str, str] = {}
        try:
            for router in routers:
                for service, endpoint_states in zip(
                    services, await asyncio.gather(*(router.observe(service) for service in services)), strict=True
                ):
                    for id, endpoint_state in endpoint_states.items():
                        now[router.name, id], whose[id] = replace(endpoint_state, in_flight=0), service
                        in_flight[id] = in_flight.get(id, 0) + endpoint_state.in_flight
        except RoutingError as error:
            log.warning("a router could not be looked at", error=str(error))
            continue
        loop.update_in_flight(in_flight)
        for service in {whose[key[1]] for key in now if now[key] != before.get(key)}:
            loop.enqueue(service)
        before = now
