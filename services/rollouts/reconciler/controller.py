"""The controller: observe, plan, commit and execute, again and again, for each service.

Each service has one worker task. Notifications wake the task, and a slow poll is the fallback (docs/why-no-polling.md).
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import asdict

import structlog
from anyio import CancelScope
from sqlmodel import Session

from services.concurrency import ExpiringSemaphore
from services.engine.port import EngineError
from services.probes import Prober
from services.readiness import Readiness
from services.rollouts.planner.steps import Remove, Start, Stop
from services.rollouts.reconciler.crash_points import CrashPoints
from services.rollouts.reconciler.executor import Executor
from services.rollouts.reconciler.linking import LinkedServices
from services.rollouts.reconciler.observation import Observation, Observer
from services.rollouts.reconciler.operations import (
    PUBLICATION,
    Activate,
    ExecuteStep,
    FetchLogTail,
    Operation,
    Publish,
    Unpublish,
)
from services.rollouts.reconciler.ports import Ports
from services.rollouts.reconciler.reconcile import reconcile_service
from services.rollouts.reconciler.recovery import known_instances, recover
from services.rollouts.reconciler.result import ReconcileResult
from services.rollouts.reconciler.service_state import CRASH_WINDOW, ServiceState
from services.rollouts.reconciler.watcher import watch
from services.rollouts.requests.activation import DeploymentActivator
from services.rollouts.requests.admission import AdmissionRules
from services.rollouts.requests.pull_credentials import PullCredentials
from services.rollouts.state.crash_history import crashes_since
from services.rollouts.state.runtime_status import RuntimeStatus
from services.rollouts.state.transitions import LeaseLost, StateWriter
from services.routing.port import RoutingError
from services.store.events import ChangeNotifier
from services.store.tables import Meta

log = structlog.get_logger()
MAX_CONCURRENT_STARTS, START_SLOT_SECONDS = 4, 10.0
MAX_CONCURRENT_RECONCILES, RECONCILE_SLOT_SECONDS = 2, 1.0
"""The limit of concurrent reconciles, and the seconds after which an unfinished one frees its slot.

All reconciles wait for the store's one writer in the end. Waiting before they observe keeps the observations fresh, and
keeps the writer's queue short for other requests (docs/why-sqlite-in-threads.md).
"""


class Controller:
    """A controller that brings every service to its desired state and keeps the service there."""

    def __init__(
        self,
        ports: Ports,
        notifier: ChangeNotifier,
        runtime_status: RuntimeStatus,
        readiness: Readiness,
        credentials: PullCredentials,
        rules: AdmissionRules,
        crash_points: CrashPoints | None = None,
    ) -> None:
        self._ports = ports
        self._notifier = notifier
        self._runtime_status = runtime_status
        self._readiness = readiness
        self._credentials = credentials
        self._rules = rules
        self._points = crash_points or CrashPoints()
        self._states: dict[str, ServiceState] = {}
        self._enqueued_early: set[str] = set()
        self._running = False
        self._prober = Prober(ports.clock, self._probed)
        self._blocked: set[str] = set()
        """Services whose next deployment waits for deployments of other services."""
        self._start_slots = ExpiringSemaphore(MAX_CONCURRENT_STARTS, START_SLOT_SECONDS)
        self._reconcile_slots = ExpiringSemaphore(MAX_CONCURRENT_RECONCILES, RECONCILE_SLOT_SECONDS)
        self.reconciles = 0
        """The number of reconciles so far, for the metrics."""

    def enqueue(self, service: str) -> None:
        """Request a reconcile of a service about which something may have changed.

        The call is cheap and must come from the event loop's thread. While the controller does not run, the request is kept
        until the next start.
        """
        if not self._running:
            self._enqueued_early.add(service)
            return
        state = self._states.setdefault(service, ServiceState())
        state.wake.set()
        if state.worker is None or state.worker.done():
            state.worker = asyncio.create_task(self._run_worker(service, state), name=f"service {service}")

    async def run(self, subnet: str, link_address: str) -> None:
        """Run the controller until cancelled.

        Instances get their addresses from `subnet` ("10.203.0.0/22"). `link_address` is the bridge's own address, at which
        the gateway answers for `links` and `internal_url`.

        Raises EngineError or RoutingError if the controller cannot start.
        """
        try:
            await self._start(subnet, link_address)
            await watch(self._ports.engine, self._ports.routers, self)
        finally:
            with CancelScope(shield=True):  # without the shield, a cancelled scope would abort the close at its first await
                await self._close()

    async def _start(self, subnet: str, link_address: str) -> None:
        """Bring the routers in line with the running instances, then start to reconcile every service."""
        ports, points = self._ports, self._points
        number = await ports.store.read(lambda session: session.get(Meta, "run"))
        self._writer = writer = StateWriter(ports.clock, int(number.value) if number else 1)
        published = await recover(ports, writer, self._prober, self._runtime_status, points)
        points.reached("start:restored")
        now = ports.clock.now()
        self._links = links = LinkedServices(ports.store, self._states, self.enqueue)
        await links.refresh()
        self._observer = Observer(ports, self._prober, self._readiness, links, subnet=subnet, watched_since=now)
        self._executor = Executor(ports, writer, self._prober, link_address, self._rules, points)
        self._activator = DeploymentActivator(ports.store, ports.clock, ports.engine, writer, self._rules, self._credentials)
        crashes = await ports.store.read(lambda session: crashes_since(session, now - CRASH_WINDOW))
        self._running = True
        for name, routed in published.items():
            self._states[name] = ServiceState(published=routed)
        for name, slot, at in crashes:
            # the host's clock may have been set back since the crash
            self._states.setdefault(name, ServiceState()).record_crashes([slot], min(at, now))
        for name in {*published, *self._enqueued_early}:
            self.enqueue(name)
        self._enqueued_early.clear()
        self._readiness.clear("loop")

    async def _close(self) -> None:
        """Stop all reconciles, operations and probes; running instances keep running."""
        self._running = False
        tasks = [
            task
            for state in self._states.values()
            for task in (state.worker, *state.operations.values())
            if task is not None
        ]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._enqueued_early |= set(self._states)
        self._states.clear()
        await self._prober.stop()
        self._prober = Prober(self._ports.clock, self._probed)

    def services(self) -> list[str]:
        """Return the names of the services that the controller looks after."""
        return list(self._states)

    async def instance_died(self, service: str, instance: str, start_id: str) -> None:
        """Mark an instance whose container died as dead in every router, then request a reconcile.

        No router may send a request to this start any more. This happens before anything is planned.
        """
        for router in self._ports.routers:
            try:
                await router.mark_dead(service, instance, start_id)
            except RoutingError as error:
                log.warning("could not withdraw a dead instance", instance=instance, error=str(error))
        self.enqueue(service)

    def update_in_flight(self, in_flight: dict[str, int]) -> None:
        """Store the routers' in-flight counts by instance id, and notify listeners if a count changed."""
        if self._runtime_status.set_in_flight(in_flight):
            self._notifier.notify()

    def report_unknown(self, instances: list[str]) -> None:
        """Store the instance ids of containers that carry Sluice's labels and that the store does not know."""
        self._runtime_status.set_unknown_containers(instances)

    async def known_instance_ids(self) -> set[str]:
        """Return the ids of all instances that the store knows and that are not gone."""
        return await self._ports.store.read(known_instances)

    async def _run_worker(self, name: str, state: ServiceState) -> None:
        """Reconcile a service repeatedly until the service is finished or the lease is lost."""
        while True:
            try:
                result = await self._reconcile(name, state)
                if result.finished and state.is_idle:
                    del self._states[name]
                    return
                delay = state.requeue_after(result)
            except LeaseLost:
                log.error("a newer run of Sluice holds this data; this one stops", service=name)
                return
            except (EngineError, RoutingError):
                delay = state.backoff.next()  # the observer has reported the error
            except Exception:
                log.exception("a reconcile failed", service=name)
                delay = state.backoff.next()
            with suppress(TimeoutError):
                async with asyncio.timeout(delay):
                    await state.wake.wait()

    async def _reconcile(self, name: str, state: ServiceState) -> ReconcileResult:
        """Observe a service, plan, commit, publish its status, and start the operations of the plan."""
        async with self._reconcile_slots.acquire():
            self.reconciles += 1
            state.wake.clear()  # before the observation, so that no later notification is lost
            observation = await self._observer.observe(name, state)
            result = await self._ports.store.write(lambda session: self._reconcile_in(session, name, observation))
        self._points.committed(result, name)
        self._publish_status(name, state, result)
        if result.requeue_after == 0:
            await self._links.refresh()
        self._links.wait(name, result.status.awaited_links, self._ports.clock.now())
        self._enqueue_blocked(name, blocked=result.status.blocked, idle=result.status.idle)
        for operation in result.operations:
            task = asyncio.create_task(self._run_operation(name, state, operation), name=f"{name}: {operation.key}")
            state.operations[operation.key] = task
        return result

    def _reconcile_in(self, session: Session, name: str, observation: Observation) -> ReconcileResult:
        result = reconcile_service(session, name, observation, self._writer)
        self._points.written("before", result.steps, name)
        return result

    def _publish_status(self, name: str, state: ServiceState, result: ReconcileResult) -> None:
        """Set the service's probe targets, store its volatile status, and notify listeners if rows changed."""
        status, now = result.status, self._ports.clock.now()
        self._prober.set_targets(status.instances, status.probes)
        self._runtime_status.set_in_flight(status.in_flight)
        for id in status.instances:
            if (probe := self._prober.last(id)) is not None:
                self._runtime_status.set_probe(id, asdict(probe))
        state.retain(status.instances)
        if status.routers_current:
            state.router_errors.clear(PUBLICATION)
        state.record_crashes(result.crashes, now)
        text = "its instances keep dying; they are started again or replaced with growing delays"
        warnings = [{"code": "crash_looping", "message": text}] if state.is_crash_looping(now) else []
        self._runtime_status.set_warnings(name, warnings)
        if status.changed:
            self._notifier.notify()

    def _enqueue_blocked(self, name: str, *, blocked: bool, idle: bool) -> None:
        """Record whether the service is blocked; if it is idle, enqueue the services that may wait for it."""
        self._blocked.discard(name)
        if blocked:
            self._blocked.add(name)
        elif idle:
            for waiting in self._blocked:
                self.enqueue(waiting)

    async def _run_operation(self, service: str, state: ServiceState, operation: Operation) -> None:
        """Run an operation, then enqueue the service, after a backoff if the operation failed."""
        try:
            await self._perform(service, state, operation)
            state.router_errors.clear(operation.key)
        except (EngineError, RoutingError) as error:
            log.warning("an operation failed and is tried again", service=service, operation=operation.key, error=str(error))
            if isinstance(error, RoutingError):
                state.router_errors.record(operation.key, self._ports.clock.now(), error)
            await asyncio.sleep(state.backoff.next())
        except LeaseLost:
            log.error("a newer run of Sluice holds this data; the operation ends", service=service, operation=operation.key)
            await asyncio.sleep(state.backoff.longest)
        except Exception:
            log.exception("an operation failed", service=service, operation=operation.key)
            await asyncio.sleep(state.backoff.next())
        del state.operations[operation.key]
        self._notifier.notify()
        self.enqueue(service)
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
            case FetchLogTail(row, revision):
                state.log_tails[row.id] = await self._executor.fetch_log_tail(row, revision)

    async def _execute(self, operation: ExecuteStep) -> None:
        if isinstance(operation.step, Start):
            async with self._start_slots.acquire():
                await self._executor.execute(operation)
        else:
            await self._executor.execute(operation)
        if isinstance(operation.step, Stop | Remove):
            self._runtime_status.forget_instance(operation.row.id)

    def _probed(self, instance: str) -> None:
        """Request a reconcile of the service of an instance whose readiness or probe error changed.

        The instance's id contains the name of the service.
        """
        self.enqueue(instance.rsplit("-r", 1)[0])
