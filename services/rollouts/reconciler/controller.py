"""The controller: observe, plan, commit and execute, again and again, for each service.

Each service has one worker task. Notifications wake the task, and a slow poll is the fallback (docs/why-no-polling.md).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from functools import partial

import structlog
from anyio import CancelScope
from sqlmodel import Session

from services.concurrency import ExpiringSemaphore
from services.engine.port import EngineError
from services.probes import Prober
from services.readiness import Readiness
from services.rollouts.planner.steps import Admit, Remove, Start, Stop
from services.rollouts.reconciler.crash_points import CrashPoints
from services.rollouts.reconciler.executor import Executor
from services.rollouts.reconciler.operations import ExecuteStep
from services.rollouts.reconciler.ports import Ports
from services.rollouts.reconciler.reconcile import reconcile_service
from services.rollouts.reconciler.recovery import known_instances, recover
from services.rollouts.reconciler.result import Observation, ReconcileResult
from services.rollouts.reconciler.service_state import CRASH_WINDOW, PUBLISH, ServiceState
from services.rollouts.reconciler.watcher import watch
from services.rollouts.requests.activation import DeploymentActivator
from services.rollouts.requests.admission import AdmissionRules
from services.rollouts.requests.pull_credentials import PullCredentials
from services.rollouts.state.crash_history import crashes_since
from services.rollouts.state.routing_config import is_published, linked_services
from services.rollouts.state.runtime_status import RuntimeStatus
from services.rollouts.state.transitions import LeaseLost, StateWriter
from services.routing.port import RoutedService, RoutingError
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
        self._prober = Prober(ports.clock, self._probed)
        self._states: dict[str, ServiceState] = {}
        self._enqueued_early: set[str] = set()
        self._running = False
        self._subnet = ""
        self._linked: set[str] = set()
        self._blocked: set[str] = set()
        """Services whose next deployment waits for deployments of other services."""
        self._awaiting_links: set[str] = set()
        """Services whose deployment waits until the routers answer for other services by name."""
        self._started_at = 0.0
        self._writer = StateWriter(ports.clock, 0)
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
            await self.start(subnet, link_address)
            await watch(self._ports.engine, self._ports.routers, self)
        finally:
            with CancelScope(shield=True):  # without the shield, a cancelled scope would abort `close` at its first await
                await self.close()

    async def start(self, subnet: str, link_address: str) -> None:
        """Bring the routers in line with the running instances, then start to reconcile every service.

        The controller reports ready when this returns. The arguments and errors are those of `run`.
        """
        number = await self._ports.store.read(lambda session: session.get(Meta, "run"))
        self._subnet = subnet
        self._writer = writer = StateWriter(self._ports.clock, int(number.value) if number else 1)
        self._executor = Executor(self._ports, writer, self._prober, link_address, self._rules, self._points)
        self._activator = DeploymentActivator(
            self._ports.store, self._ports.clock, self._ports.engine, writer, self._rules, self._credentials
        )
        published = await recover(self._ports, writer, self._prober, self._runtime_status, self._points)
        self._points.reached("start:restored")
        self._linked = await self._ports.store.read(linked_services)
        self._started_at = now = self._ports.clock.now()
        crashes = await self._ports.store.read(lambda session: crashes_since(session, now - CRASH_WINDOW))
        self._running = True
        for name, routed in published.items():
            self._states.setdefault(name, ServiceState()).published = routed
        for name, slot, at in crashes:
            # the host's clock may have been set back since the crash
            self._states.setdefault(name, ServiceState()).record_crashes([slot], min(at, now))
        for name in {*published, *self._enqueued_early}:
            self.enqueue(name)
        self._enqueued_early.clear()
        self._readiness.clear("loop")

    async def close(self) -> None:
        """Stop all reconciles, operations and probes; running instances keep running."""
        self._running = False
        tasks = [
            task for state in self._states.values() for task in (state.worker, *state.busy.values()) if task is not None
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

    async def reconcile(self, name: str) -> ReconcileResult:
        """Observe a service, plan, commit, and start the operations of the plan."""
        state = self._states.setdefault(name, ServiceState())
        async with self._reconcile_slots.acquire():
            self.reconciles += 1
            state.wake.clear()  # before the observation, so that no later notification is lost
            observation = await self._observe(name, state)
            result = await self._ports.store.write(lambda session: self._reconcile_in(session, name, observation))
        self._committed(name, result)
        await self._publish_status(name, state, result)
        if result.needs_log_tail is not None:
            row, revision = result.needs_log_tail
            state.log_tails[row.id] = await self._executor.fetch_log_tail(row, revision)
            state.wake.set()
        for id in result.activate:
            self._start_operation(name, state, f"begin {id}", partial(self._activate, name, id))
        if result.unpublish:
            self._start_operation(name, state, PUBLISH, partial(self._unpublish, name, state))
        elif result.routed is not None and result.routed != state.published:
            self._start_operation(name, state, PUBLISH, partial(self._publish, result.routed, state))
        elif result.plan is not None:
            state.record_router_error(PUBLISH, self._ports.clock.now(), None)
        for operation in result.operations:
            if not observation.is_current(operation.row.id):
                state.wake.set()  # an operation on the instance ended since, so the observation may be out of date
            elif not isinstance(operation.step, Admit) or is_published(result.routed, state.published):
                self._start_operation(name, state, operation.row.id, partial(self._execute, operation))
        return result

    def _reconcile_in(self, session: Session, name: str, observation: Observation) -> ReconcileResult:
        result = reconcile_service(session, name, observation, self._writer)
        self._points.written("before", result.plan.steps if result.plan else (), name)
        return result

    def _committed(self, name: str, result: ReconcileResult) -> None:
        """Report the crash points between the commit of a result and everything that follows from it."""
        if result.plan is None:
            return
        self._points.written("after", result.plan.steps, name)
        if result.plan.steps:
            self._points.reached("loop:decided", name)
        if result.plan.outcome is not None and result.requeue_now:
            self._points.reached("loop:concluded", name)

    async def _run_worker(self, name: str, state: ServiceState) -> None:
        """Reconcile a service repeatedly until the service is finished or the lease is lost."""
        while True:
            try:
                result = await self.reconcile(name)
                delay = state.requeue_after(result, self._ports.clock.now())
                self._readiness.clear("engine")
                if result.finished and state.idle:
                    del self._states[name]
                    return
            except LeaseLost:
                log.error("a newer run of Sluice holds this data; this one stops", service=name)
                return
            except (EngineError, RoutingError) as error:
                self._readiness.report("engine" if isinstance(error, EngineError) else "gateway", str(error))
                delay = state.backoff.next()
            except Exception:
                log.exception("a turn failed", service=name)
                delay = state.backoff.next()
            if not state.wake.is_set():
                await _wait(state.wake, delay)

    async def _observe(self, name: str, state: ServiceState) -> Observation:
        """Observe a service, up to ten times, until none of its operations ended during the observation."""
        for _ in range(10):
            done = state.operations_ended
            containers = await self._ports.engine.observe(name)
            endpoint_states = [await router.observe(name) for router in self._ports.routers]
            if state.operations_ended == done:
                break
        now = self._ports.clock.now()
        state.update_health(containers, endpoint_states, now)
        self._readiness.clear("gateway")
        return Observation(
            containers=containers,
            endpoint_states=endpoint_states,
            unhealthy_since=state.unhealthy_since,
            published=state.published,
            subnet=self._subnet,
            probes=self._prober.snapshot((view.instance, view.start_id) for view in containers),
            is_linked=name in self._linked,
            is_current=lambda instance: state.is_current(instance, done),
            watched_since=self._started_at,
            backoff_until=state.backoff_until(now),
            persistent_router_error=state.persistent_router_error(now),
            unpublished=state.unpublished(now),
            unserved_link=lambda other: self._states[other].unserved_link(now) if other in self._states else None,
            log_tails=state.log_tails,
        )

    async def _publish_status(self, name: str, state: ServiceState, result: ReconcileResult) -> None:
        """Store the volatile status of a service, set its probe targets, and notify listeners.

        Services whose deployments wait for this service are enqueued.
        """
        now = self._ports.clock.now()
        self._prober.set_targets(result.instances, result.probes)
        self._runtime_status.set_in_flight(result.in_flight)
        for id in result.instances:
            if (probe := self._prober.last(id)) is not None:
                self._runtime_status.set_probe(id, asdict(probe))
        state.keep_troubles(result.instances)
        state.ended = {id: state.ended[id] for id in result.instances if id in state.ended}
        state.log_tails = {id: state.log_tails[id] for id in result.instances if id in state.log_tails}
        state.record_crashes(result.crashed_slots, now)
        text = "its instances keep dying; they are started again or replaced with growing delays"
        warnings = [{"code": "crash_looping", "message": text}] if state.is_crash_looping(now) else []
        self._runtime_status.set_warnings(name, warnings)
        if result.changed:
            self._notifier.notify()
        if result.requeue_now:
            state.wake.set()
            await self._refresh_links()
        self._awaiting_links.discard(name)
        if result.waits_for_links:
            self._awaiting_links.add(name)
        self._blocked.discard(name)
        if result.blocked:
            self._blocked.add(name)
        elif result.idle:
            for waiting in self._blocked:
                self.enqueue(waiting)

    def _start_operation(self, name: str, state: ServiceState, key: str, work: Callable[[], Awaitable[None]]) -> None:
        """Start an operation, unless one with the same key is in progress."""
        if key not in state.busy:
            state.busy[key] = asyncio.create_task(self._run_operation(name, state, key, work), name=f"{name}: {key}")

    async def _run_operation(self, name: str, state: ServiceState, key: str, work: Callable[[], Awaitable[None]]) -> None:
        """Run an operation, then request a reconcile, after a back-off if the operation failed."""
        delay = 0.0
        try:
            await work()
            state.record_router_error(key, self._ports.clock.now(), None)
        except (EngineError, RoutingError) as error:
            log.warning("an operation failed and is tried again", service=name, operation=key, error=str(error))
            delay = state.backoff.next()
            if isinstance(error, RoutingError):
                state.record_router_error(key, self._ports.clock.now(), error)
        except Exception:
            log.exception("an operation failed", service=name, operation=key)
            delay = state.backoff.next()
        if delay:
            await asyncio.sleep(delay)
        state.operation_finished(key)
        self._notifier.notify()
        self.enqueue(name)
        if key == PUBLISH:
            for waiting in self._awaiting_links:
                self.enqueue(waiting)

    async def _activate(self, name: str, id: int) -> None:
        self._points.reached("loop:beginning", name)
        await self._activator.pull_and_activate(id)
        self._points.reached("loop:begun", name)
        await self._refresh_links()

    async def _refresh_links(self) -> None:
        """Reload the set of linked services, and request a reconcile of those that entered or left the set.

        A service is linked if another service names it in its `links`. The gateway answers for linked services by name.
        """
        before, self._linked = self._linked, await self._ports.store.read(linked_services)
        for name in (before ^ self._linked) & set(self._states):
            self.enqueue(name)

    async def _execute(self, operation: ExecuteStep) -> None:
        if isinstance(operation.step, Start):
            async with self._start_slots.acquire():
                await self._executor.execute(operation)
        else:
            await self._executor.execute(operation)
        if isinstance(operation.step, Stop | Remove):
            self._runtime_status.forget_instance(operation.row.id)

    async def _publish(self, routed: RoutedService, state: ServiceState) -> None:
        for router in self._ports.routers:
            await router.publish(routed)
        self._points.reached("loop:published", routed.name)
        state.published = routed

    async def _unpublish(self, name: str, state: ServiceState) -> None:
        for router in self._ports.routers:
            await router.unpublish(name)
        self._points.reached("loop:unpublished", name)
        state.published = None

    def _probed(self, instance: str) -> None:
        """Request a reconcile of the service of an instance whose readiness or probe error changed.

        The instance's id contains the name of the service.
        """
        self.enqueue(instance.rsplit("-r", 1)[0])


async def _wait(event: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return
