"""The runner of operations: one task per operation, with at most one operation per key at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from services.concurrency import ExpiringSemaphore
from services.engine.port import EngineError
from services.rollouts.planner.steps import Remove, Start, Stop
from services.rollouts.reconciler.crash_points import CrashPoints
from services.rollouts.reconciler.executor import Executor
from services.rollouts.reconciler.linking import LinkedServices
from services.rollouts.reconciler.operations import (
    PUBLICATION,
    Activate,
    ExecuteStep,
    FetchLogTail,
    Operation,
    Publish,
    Reconnect,
    Unpublish,
    is_routed,
)
from services.rollouts.reconciler.ports import Ports
from services.rollouts.reconciler.service_state import BACKOFF_MAX, ServiceState
from services.rollouts.reconciler.status_publisher import StatusPublisher
from services.rollouts.reconciler.stop_limit import stop_limit
from services.rollouts.requests.activation import DeploymentActivator
from services.rollouts.state.transitions import LeaseLost
from services.routing.port import RoutingError

log = structlog.get_logger()
MAX_CONCURRENT_STARTS, START_SLOT_SECONDS = 4, 10.0


class OperationRunner:
    """The runner of the operations of every service."""

    def __init__(
        self,
        ports: Ports,
        executor: Executor,
        activator: DeploymentActivator,
        links: LinkedServices,
        status: StatusPublisher,
        enqueue: Callable[[str], None],
        points: CrashPoints,
    ) -> None:
        self._ports = ports
        self._executor = executor
        self._activator = activator
        self._links = links
        self._status = status
        self._enqueue = enqueue
        self._points = points
        self._start_slots = ExpiringSemaphore(MAX_CONCURRENT_STARTS, START_SLOT_SECONDS)

    def start(self, service: str, state: ServiceState, operation: Operation) -> None:
        """Start an operation of a service; the service's worker ensures that none with its key is in progress."""
        run = self._run(service, state, operation)
        state.operations[operation.key] = asyncio.create_task(run, name=f"{service}: {operation.key}")

    async def _run(self, service: str, state: ServiceState, operation: Operation) -> None:
        """Run an operation, then enqueue the service, after a backoff if the operation failed."""
        try:
            await self._perform(service, state, operation)
            state.operation_succeeded(operation.key, routed=is_routed(operation))
        except (EngineError, RoutingError) as error:
            log.warning("operation failed; retrying", service=service, operation=operation.key, error=str(error))
            if isinstance(error, RoutingError):
                state.router_errors.record(operation.key, self._ports.clock.now(), error)
            await asyncio.sleep(state.operation_failed(operation.key))
        except LeaseLost:
            text = "a newer process of Sluice owns this data; the operation ends"
            log.error(text, service=service, operation=operation.key)
            await asyncio.sleep(BACKOFF_MAX)
        except Exception:
            log.exception("operation failed", service=service, operation=operation.key)
            await asyncio.sleep(state.operation_failed(operation.key))
        del state.operations[operation.key]
        self._status.notify()
        self._enqueue(service)
        if operation.key == PUBLICATION:
            self._links.publication_changed()

    async def _perform(self, service: str, state: ServiceState, operation: Operation) -> None:
        match operation:
            case Activate(id):
                self._points.reached("loop:beginning", service)
                await self._activator.pull_and_activate(id)
                self._points.reached("loop:begun", service)
                await self._links.refresh()
            case Publish(routed):
                for router in self._ports.routers:
                    await router.publish(routed)
                self._points.reached("loop:published", service)
                state.published = routed
            case Unpublish():
                for router in self._ports.routers:
                    await router.unpublish(service)
                self._points.reached("loop:unpublished", service)
                state.published = None
            case ExecuteStep():
                await self._execute(operation)
            case Reconnect(row):
                await self._ports.engine.reconnect(row.id, row.address, row.container_id)
            case FetchLogTail(row, revision):
                state.log_tails[row.id] = await self._executor.fetch_log_tail(row, revision)

    async def _execute(self, operation: ExecuteStep) -> None:
        if isinstance(operation.step, Start):
            async with self._start_slots.acquire():
                await self._executor.execute(operation)
        else:
            if isinstance(operation.step, Stop):
                self._status.begin_stop(operation.row.id, stop_limit(operation.row, operation.revision))
            await self._executor.execute(operation)
        if isinstance(operation.step, Stop | Remove):
            self._status.forget_instance(operation.row.id)
