"""Publication of services' volatile status: probe targets, in-flight counts, probes and warnings."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict

from services.clock import Clock
from services.probes import Prober
from services.rollouts.reconciler.operations import PUBLICATION
from services.rollouts.reconciler.result import ReconcileResult
from services.rollouts.reconciler.service_state import ServiceState
from services.rollouts.reconciler.stop_limit import StopLimit
from services.rollouts.state.instance_health import failed_check
from services.rollouts.state.recognition import UnknownContainer
from services.rollouts.state.runtime_status import CRASH_LOOPING, InstanceStop, RuntimeStatus
from services.routing.port import EndpointState
from services.store.events import ChangeNotifier


class StatusPublisher:
    """The publisher of the volatile status.

    It enqueues the services whose deployments wait for another service.
    """

    def __init__(
        self,
        clock: Clock,
        prober: Prober,
        runtime_status: RuntimeStatus,
        notifier: ChangeNotifier,
        enqueue: Callable[[str], None],
    ) -> None:
        self._clock = clock
        self._prober = prober
        self._runtime_status = runtime_status
        self._notifier = notifier
        self._enqueue = enqueue
        self._blocked: set[str] = set()
        """Services whose next deployment waits for deployments of other services."""

    def publish(self, name: str, state: ServiceState, result: ReconcileResult) -> None:
        """Set the service's probe targets, store its volatile status, and notify listeners if rows changed."""
        status, now = result.status, self._clock.now()
        self._prober.set_targets(status.instances, status.probes)
        self._runtime_status.set_in_flight(status.in_flight)
        for id in status.instances:
            if (probe := self._prober.last(id)) is not None:
                self._runtime_status.set_probe(id, asdict(probe))
        for id, check in status.checks.items():
            self._runtime_status.set_probe(id, check)
        state.retain(status.instances, {operation.key for operation in result.operations})
        if status.routers_current:
            state.router_errors.clear(PUBLICATION)
        state.record_crashes(result.crashes, now)
        crash_looping = [CRASH_LOOPING] if state.is_crash_looping(now) else []
        warnings_changed = self._runtime_status.set_warnings(name, [*crash_looping, *status.warnings])
        if status.changed or warnings_changed:
            self._notifier.notify()

    def enqueue_blocked(self, name: str, *, blocked: bool, idle: bool) -> None:
        """Record whether the service is blocked; if it is idle, enqueue the services that may wait for it."""
        self._blocked.discard(name)
        if blocked:
            self._blocked.add(name)
        elif idle:
            for waiting in self._blocked:
                self._enqueue(waiting)

    def update_endpoints(self, states: Iterable[tuple[str, EndpointState]]) -> None:
        """Store in-flight counts and last checks of instances, and notify listeners of changes.

        `states` are pairs of instance id and state; an instance has a pair for each of its routers.
        """
        now = self._clock.now()
        in_flight: dict[str, int] = {}
        changed = False
        for id, state in states:
            in_flight[id] = in_flight.get(id, 0) + state.in_flight
            if state.state == "admitted" and state.checked:
                error = None if state.healthy else failed_check(state)
                check = {"ok": state.healthy, "status": state.check_status, "error": error, "at": now}
                changed = self._runtime_status.set_probe(id, check) or changed
        if self._runtime_status.set_in_flight(in_flight) or changed:
            self._notifier.notify()

    def begin_stop(self, instance: str, limit: StopLimit) -> None:
        """Store that an instance is being stopped from now on, and notify listeners."""
        self._runtime_status.set_stop(instance, InstanceStop(self._clock.now(), limit.signal, limit.grace))
        self._notifier.notify()

    def report_unknown(self, containers: Iterable[UnknownContainer]) -> None:
        """Store the containers that have Sluice's labels and that the store does not know."""
        self._runtime_status.set_unknown_containers(containers)

    def forget_instance(self, instance: str) -> None:
        """Delete the volatile status of an instance that was stopped or removed."""
        self._runtime_status.forget_instance(instance)

    def notify(self) -> None:
        """Notify listeners that rows changed."""
        self._notifier.notify()
