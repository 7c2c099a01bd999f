"""Execution of steps: call the engine and the routers, then write the outcome in one transaction."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import replace

import anyio.to_thread
import structlog
from sqlmodel import Session

from services.backoff import Backoff
from services.engine.port import IMAGE_GONE, ContainerView, EngineError
from services.masking import log_mask
from services.probes import Prober
from services.rollouts.planner.steps import Admit, ForceClose, Remove, Start, Stop, Withdraw
from services.rollouts.reconciler.crash_points import CrashPoints
from services.rollouts.reconciler.instance_spec import instance_spec
from services.rollouts.reconciler.operations import ExecuteStep
from services.rollouts.reconciler.ports import Ports
from services.rollouts.reconciler.stop_limit import stop_limit
from services.rollouts.requests.admission import AdmissionRules, admission_errors
from services.rollouts.requests.revision_image import ensure_image
from services.rollouts.requests.spec_errors import invalid
from services.rollouts.state.host_ports import MAX_ATTEMPTS, allocate_host_port
from services.rollouts.state.revision_spec import revision_spec
from services.rollouts.state.routing_config import endpoint_for
from services.rollouts.state.transitions import StateWriter
from services.spec import HostPort
from services.store.tables import Deployment, Instance, Revision

log = structlog.get_logger()
LOG_TAIL_LINES, LOG_TAIL_BYTES = 200, 64 * 1024
FIRST_LOG_RETRY, LOG_TIMEOUT = 0.2, 10.0
"""Seconds until the log of an instance is read again at first, and in all, if the engine does not deliver it."""
SIGKILL_EXIT_CODE = 137


class Executor:
    """The executor of steps.

    Every method is idempotent and may be called again after a crash at any point.
    """

    def __init__(
        self,
        ports: Ports,
        writer: StateWriter,
        prober: Prober,
        link_address: str,
        rules: AdmissionRules,
        points: CrashPoints,
    ) -> None:
        self._store = ports.store
        self._engine = ports.engine
        self._routers = ports.routers
        self._writer = writer
        self._prober = prober
        self._link_address = link_address
        self._rules = rules
        self._points = points

    async def execute(self, operation: ExecuteStep) -> None:
        """Execute a step.

        Raises EngineError or RoutingError if the step could not be done. The controller decides how to react.
        """
        self._reached("before", operation)
        match operation.step:
            case Start():
                await self._start(operation)
            case Admit():
                await self._admit(operation)
            case Withdraw():
                await self._withdraw(operation)
            case ForceClose():
                await self._force_close(operation)
            case Stop():
                await self._stop(operation)
            case Remove():
                await self._remove(operation)
            case _:
                raise ValueError(f"{operation.step} consists of a write, which the reconciliation makes")
        self._reached("after", operation)
        if isinstance(operation.step, Stop):
            await self.execute(replace(operation, step=Remove(operation.row.id)))

    def _reached(self, when: str, operation: ExecuteStep) -> None:
        self._points.step(when, operation.step, operation.row.service)

    async def _start(self, operation: ExecuteStep, attempts: int = MAX_ATTEMPTS) -> None:
        service, spec = operation.row.service, revision_spec(operation.revision)
        if errors := await self._store.read(lambda session: admission_errors(self._rules, session, service, spec)):
            why = f"{operation.row.id} cannot be started: {invalid(errors).detail}"
            failure: dict[str, object] = {
                "failure_reason": "invalid_spec",
                "failure": why,
                "failed_deployment": operation.deployment,
            }
            await self._record(operation, "failed", why, failure)
            return
        try:
            view = await self._start_container(operation)
        except EngineError as error:
            if error.transient:
                raise
            requested = revision_spec(operation.revision).host_port
            if error.reason == "port_taken" and requested is not None and attempts > 1:
                await self._start(await self._with_another_port(operation, requested), attempts - 1)
                return
            why = await _masked(str(error), operation.revision)
            reason = "no_capacity" if error.reason == "port_taken" else error.reason
            failure = {"failure_reason": reason, "failure": why, "failed_deployment": operation.deployment}
            await self._record(operation, "failed", f"{operation.row.id} cannot be started: {why}", failure)
            return
        row = operation.row
        changes = {"container_id": view.container_id, "start": view.start_id, "started_at": self._writer.clock.now()}

        def apply(session: Session) -> None:
            current = session.get_one(Instance, row.id)
            if current.start != view.start_id and current.stopped_at is None:
                text = f"{row.id} started at {row.address}"
                self._writer.set_instance_status(session, current, "starting", text, operation.deployment, changes)

        self._reached("done", operation)
        await self._store.write(apply)

    async def _start_container(self, operation: ExecuteStep) -> ContainerView:
        """Start the container; if the engine has lost the image, pull it again first."""
        spec = instance_spec(operation.row, operation.revision, self._rules, self._link_address)
        try:
            return await self._engine.start(spec)
        except EngineError as error:
            if error.reason != IMAGE_GONE:
                raise
        await ensure_image(self._engine, operation.revision)
        return await self._engine.start(spec)

    async def _with_another_port(self, operation: ExecuteStep, requested: HostPort) -> ExecuteStep:
        """Return the operation with another host port, because another program uses the allocated one."""

        def reallocate(session: Session) -> Instance:
            row = session.get_one(Instance, operation.row.id)
            taken, row.host_port = row.host_port, allocate_host_port(session, requested)
            row.port = row.port if row.port is None else row.host_port
            text = f"host port {taken} is in use: {row.id} tries {row.host_port}"
            self._writer.set_instance_status(session, row, "creating", text, operation.deployment)
            return row

        return replace(operation, row=await self._store.write(reallocate))

    async def _admit(self, operation: ExecuteStep) -> None:
        row = operation.row
        for router in self._routers:
            if row.port is not None:
                await router.admit(endpoint_for(row, operation.revision, row.start or ""))
        self._reached("half", operation)
        await self._engine.enable_auto_restart(row.id, row.container_id)

    async def _withdraw(self, operation: ExecuteStep) -> None:
        for router in self._routers:
            await router.withdraw(operation.row.service, operation.row.id)

    async def _force_close(self, operation: ExecuteStep) -> None:
        row = operation.row
        closed = 0
        for router in self._routers:
            closed += await router.force_close(row.service, row.id)
        timeout = revision_spec(operation.revision).drain_timeout
        text = f"{row.id}: {closed} still in flight after drain_timeout ({timeout:g} s): force-closed"
        if row.status == "failed":
            text = f"{row.id}: {closed} in flight force-closed, because it cannot answer any more"
        changes: dict[str, object] = {"cut_at": self._writer.clock.now()}
        await self._record(
            operation, "draining", text, changes, warning="drain_timeout" if closed and row.status != "failed" else None
        )

    async def _stop(self, operation: ExecuteStep) -> None:
        """Stop the container of a drained instance; no request is lost, even if the process must be killed."""
        row, limit = operation.row, stop_limit(operation.row, operation.revision)
        began = self._writer.clock.now()
        view = await self._engine.stop(row.id, limit.grace, row.container_id)
        took = self._writer.clock.now() - began
        killed = view is not None and view.exit_code == SIGKILL_EXIT_CODE and took >= limit.grace
        code = f" with code {view.exit_code}" if view is not None and view.exit_code is not None else ""
        text = f"{row.id} exited{code}"
        if killed:
            text = f"{row.id} still running after {limit.grace:g} s ({limit.source}): killed{limit.advice}"
        await self._record(operation, "stopping", text, _ended(row, view), warning="stop_grace_period" if killed else None)

    async def _remove(self, operation: ExecuteStep) -> None:
        row = operation.row
        # the log of a failed instance is removed with its container, so its tail is stored before
        missing = row.failure_reason and row.log_tail is None
        tail = await self.fetch_log_tail(row, operation.revision) if missing else row.log_tail
        for router in self._routers:
            if row.port is not None:
                await router.remove(row.service, row.id)
        self._reached("half", operation)
        await self._engine.remove(row.id, row.container_id)
        probe = self._prober.last(row.id)
        self._prober.remove(row.id)
        changes: dict[str, object] = {"stopped_at": self._writer.clock.now(), "log_tail": tail}
        if probe is not None:
            changes["last_probe"] = {"ok": probe.ok, "status": probe.status, "error": probe.error, "at": probe.at}
        await self._record(operation, "stopped", f"{row.id} removed", changes)

    async def fetch_log_tail(self, row: Instance, revision: Revision) -> str | None:
        """Return the end of an instance's log with secrets masked, or None if it cannot be read.

        A log that cannot be read delays neither the outcome of a deployment nor the removal of its instance for long.
        """
        attempts = Backoff(FIRST_LOG_RETRY, LOG_TIMEOUT)
        text: str | None = None
        with suppress(TimeoutError):
            async with asyncio.timeout(LOG_TIMEOUT):
                while text is None:
                    try:
                        text = await self._engine.logs(row.id, row.container_id, tail=LOG_TAIL_LINES)
                    except EngineError as error:
                        if not error.transient:
                            return None
                        await asyncio.sleep(attempts.next())
        if text is None:
            log.warning("log cannot be read", instance=row.id)
            return None
        masked = await _masked(text, revision)
        return masked.encode(errors="replace")[-LOG_TAIL_BYTES:].decode(errors="replace")

    async def _record(
        self, operation: ExecuteStep, status: str, text: str, changes: dict[str, object], *, warning: str | None = None
    ) -> None:
        def apply(session: Session) -> None:
            row = session.get_one(Instance, operation.row.id)
            if row.stopped_at is not None:
                return  # the removal is recorded already; this operation was planned before that
            self._writer.set_instance_status(session, row, status, text, operation.deployment, changes)
            if warning is not None and operation.deployment is not None:
                self._writer.warn(session, session.get_one(Deployment, operation.deployment), warning, text)

        self._reached("done", operation)
        await self._store.write(apply)


async def _masked(text: str, revision: Revision) -> str:
    """Return a text of an instance or of the engine with the secrets of the revision's spec masked."""
    return await anyio.to_thread.run_sync(lambda: log_mask(revision.effective).text(text))


def _ended(row: Instance, view: ContainerView | None) -> dict[str, object]:
    if view is None or row.exit_code is not None:
        return {}
    return {"exit_code": view.exit_code, "oom_killed": view.oom_killed}
