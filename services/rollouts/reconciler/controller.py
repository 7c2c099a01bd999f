"""The controller: observe, plan, commit and execute, again and again, for each service.

Each service has one worker task. Notifications wake the task, and a slow poll is the fallback (docs/why-no-polling.md).
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

import structlog
from anyio import CancelScope
from sqlmodel import Session

from services.concurrency import ExpiringSemaphore
from services.engine.port import EngineError
from services.probes import Prober
from services.readiness import Readiness
from services.rollouts.reconciler.crash_points import CrashPoints
from services.rollouts.reconciler.executor import Executor
from services.rollouts.reconciler.linking import LinkedServices
from services.rollouts.reconciler.observation import Observation, Observer
from services.rollouts.reconciler.operation_runner import OperationRunner
from services.rollouts.reconciler.ports import Ports
from services.rollouts.reconciler.reconcile import reconcile_service
from services.rollouts.reconciler.recovery import recover
from services.rollouts.reconciler.result import ReconcileResult
from services.rollouts.reconciler.service_state import CRASH_WINDOW, ServiceState
from services.rollouts.reconciler.status_publisher import StatusPublisher
from services.rollouts.reconciler.watcher import Watcher
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

    def services(self) -> list[str]:
        """Return the names of the services that the controller looks after."""
        return list(self._states)

    async def run(self, subnet: str, link_address: str) -> None:
        """Run the controller until cancelled.

        Instances get their addresses from `subnet` ("10.203.0.0/22"). `link_address` is the bridge's own address, at which
        the gateway answers for `links` and `internal_url`.

        Raises EngineError or RoutingError if the controller cannot start.
        """
        try:
            await self._start(subnet, link_address)
            await Watcher(self._ports, self._status, self._states.keys(), self.enqueue).run()
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
        self._status = StatusPublisher(ports.clock, self._prober, self._runtime_status, self._notifier, self.enqueue)
        self._observer = Observer(ports, self._prober, self._readiness, links, subnet=subnet, watched_since=now)
        executor = Executor(ports, writer, self._prober, link_address, self._rules, points)
        activator = DeploymentActivator(ports.store, ports.clock, ports.engine, writer, self._rules, self._credentials)
        self._operations = OperationRunner(ports, executor, activator, links, self._status, self.enqueue, points)
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
                log.error("a newer process of Sluice owns this data; the worker ends", service=name)
                return
            except (EngineError, RoutingError):
                delay = state.reconcile_backoff.next()  # the observer has reported the error
            except Exception:
                log.exception("reconcile failed", service=name)
                delay = state.reconcile_backoff.next()
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
        self._status.publish(name, state, result)
        if result.requeue_after == 0:
            await self._links.refresh()
        self._links.wait(name, result.status.awaited_links, self._ports.clock.now())
        self._status.enqueue_blocked(name, blocked=result.status.blocked, idle=result.status.idle)
        for operation in result.operations:
            self._operations.start(name, state, operation)
        return result

    def _reconcile_in(self, session: Session, name: str, observation: Observation) -> ReconcileResult:
        result = reconcile_service(session, name, observation, self._writer)
        self._points.written("before", result.steps, name)
        return result

    def _probed(self, instance: str) -> None:
        """Request a reconcile of the service of an instance whose readiness or probe error changed.

        The instance's id contains the name of the service.
        """
        self.enqueue(instance.rsplit("-r", 1)[0])
