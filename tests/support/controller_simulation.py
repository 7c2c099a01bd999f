"""Simulation of the controller in virtual time: real store, fake engine and gateway, injected faults."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import structlog
from sqlalchemy import event
from sqlmodel import Session, col, select

from services.actor import Actor
from services.engine.port import ContainerView, EngineError, ImageInfo, InstanceSpec
from services.errors import RequestError
from services.readiness import Readiness
from services.rollouts.reconciler.controller import Controller
from services.rollouts.reconciler.ports import Ports
from services.rollouts.requests import commands
from services.rollouts.requests.admission import AdmissionRules
from services.rollouts.requests.command import Command, DeployRequest, RequestContext
from services.rollouts.requests.pull_credentials import PullCredentials
from services.rollouts.requests.submit import Action, Submitter
from services.rollouts.state.runtime_status import RuntimeStatus
from services.rollouts.state.status import TERMINAL, TRANSITIONS, Status
from services.routing.port import RoutingError
from services.store.database import Store
from services.store.events import ChangeNotifier
from services.store.tables import Deployment, Event, Instance, Meta, Revision, Service
from tests.support.fakes.engine import Behaviour, FakeEngine
from tests.support.fakes.gateway import FakeGateway
from tests.support.virtual_time import LoopClock

T = TypeVar("T")
CI = RequestContext(Actor("token", "ci"))
SERVICE = "web"
CHECK = {"test": ["CMD", "true"], "start_period": 20}
IMAGES: dict[str, tuple[Behaviour, float | None]] = {
    "web:1": (Behaviour(), 0.5),
    "web:2": (Behaviour(stop_takes=2), 2.0),
    "web:slow": (Behaviour(start_takes=3), 10.0),
    "web:stubborn": (Behaviour(stop_takes=None), 0.5),
    "web:dies": (Behaviour(exits_at_once=1, log="no such file"), None),
    "web:fragile": (Behaviour(exits_after=(3, 2)), 0.5),
    "web:never": (Behaviour(), None),
}
"""Image → behaviour of its containers, and seconds from start to healthy (None: never)."""


class InlineStore(Store):
    """The real store without its threads and without waiting for the disk.

    `hook` is awaited after each write transaction.
    """

    hook: Callable[[str, str], Awaitable[None]]

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        for engine in (self._writer, self._reader):
            event.listen(engine, "connect", lambda connection, _: connection.execute("PRAGMA synchronous=OFF"))

    async def write(self, work: Callable[[Session], T]) -> T:
        await asyncio.sleep(0)
        with self.write_session() as session:
            result = work(session)
        await self.hook("written", "")
        return result

    async def read(self, work: Callable[[Session], T]) -> T:
        await asyncio.sleep(0)
        with self.read_session() as session:
            return work(session)


class Engine(FakeEngine):
    """FakeEngine that awaits `hook` before each call acts, and again before the call's answer arrives."""

    hook: Callable[[str, str], Awaitable[None]]

    async def pull(self, reference: str, auth: str | None = None) -> ImageInfo:
        await self.hook("pull", reference)
        return await super().pull(reference, auth)

    async def start(self, spec: InstanceSpec) -> ContainerView:
        await self.hook("start", spec.id)
        view = await super().start(spec)
        await self.hook("started", spec.id)
        return view

    async def enable_auto_restart(self, instance: str, container: str | None = None) -> None:
        await self.hook("enable_auto_restart", instance)
        await super().enable_auto_restart(instance, container)

    async def stop(self, instance: str, grace: float, container: str | None = None) -> ContainerView | None:
        await self.hook("stop", instance)
        view = await super().stop(instance, grace, container)
        await self.hook("stopped", instance)
        return view

    async def remove(self, instance: str, container: str | None = None) -> None:
        await self.hook("remove", instance)
        await super().remove(instance, container)
        await self.hook("removed", instance)


class ControllerSimulation:
    """One service, its controller, and the events that affect them."""

    def __init__(self, path: Path) -> None:
        self.clock = LoopClock()
        self.engine = Engine(self.clock)
        self.gateway = FakeGateway(self.clock)
        self.store = InlineStore(path)
        self.wrong: list[str] = []
        """Violations found while the simulation runs."""
        self.crashes = 0
        self.failing: set[str] = set()
        """Instances whose own test fails."""
        self._crash_in = -1
        self._crashed = asyncio.Event()
        self._run = 0
        self._well = False
        self._tasks: list[asyncio.Task[None]] = []
        self.engine.hook = self.store.hook = self.gateway.before = self._step
        for reference, (behaviour, _) in IMAGES.items():
            self.engine.add_image(reference)
            self.engine.behave(reference, behaviour)
        structlog.configure(processors=[self._note])

    # Lifecycle

    async def begin(self) -> None:
        self._somebody = asyncio.current_task()
        self._tasks = [asyncio.create_task(self._supervise()), asyncio.create_task(self._applications())]
        await asyncio.sleep(0.01)

    async def end(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.engine.close()
        self.store.close()
        structlog.reset_defaults()

    async def _supervise(self) -> None:
        """Run the controller as the process does.

        A controller that cannot start is started again; a killed one is followed by a new run.
        """
        while True:
            self._run += 1
            with self.store.write_session() as session:
                session.merge(Meta(key="run", value=str(self._run)))
            self._crashed.clear()
            self.live, listeners, credentials = RuntimeStatus(), ChangeNotifier(), PullCredentials()
            ports = Ports(self.store, self.clock, self.engine, [self.gateway])
            self.runner = Controller(ports, listeners, self.live, Readiness(), credentials, AdmissionRules())
            self.requests = Submitter(
                self.store,
                self.clock,
                self.engine,
                listeners,
                lambda name: self.runner.enqueue(name),
                AdmissionRules(),
                credentials,
            )
            running = asyncio.create_task(self._keep_running(self.runner))
            try:
                await self._crashed.wait()
            finally:
                running.cancel()
                await asyncio.gather(running, return_exceptions=True)
            self.crashes += 1

    async def _keep_running(self, runner: Controller) -> None:
        while True:
            with suppress(EngineError, RoutingError):
                await runner.run("10.203.0.0/24", "10.203.0.1")
            await asyncio.sleep(1)

    async def _applications(self) -> None:
        """Set each instance to healthy when its image's delay has passed."""
        known = {image.id: reference for reference, image in self.engine.registry.items()}
        since: dict[tuple[str, int], float] = {}
        while True:
            now = asyncio.get_running_loop().time()
            for id, container in list(self.engine.containers.items()):
                after = IMAGES[known[container.spec.image_id]][1]
                after = 0.5 if self._well and after is None else after
                begun = since.setdefault((id, container.starts), now)
                due = after is not None and now >= begun + after and id not in self.failing
                if container.state == "running" and due:
                    self.engine.set_health(id, "healthy")
            await asyncio.sleep(0.25)

    async def _step(self, what: str, about: str) -> None:
        """Observe one step before or after it is done; the process may be killed here."""
        if what == "stop":
            self._watch_stop(about)
        if self._crash_in > 0:
            self._crash_in -= 1
            if self._crash_in == 0:
                self._crashed.set()
                if asyncio.current_task() is not self._somebody:
                    await asyncio.Event().wait()

    def crash_after(self, steps: int) -> None:
        """Kill the process at the given number of steps from now; 0 is now."""
        self._crash_in = steps
        if steps == 0:
            self._crashed.set()

    def _watch_stop(self, instance: str) -> None:
        """Record a violation if an instance is stopped while it may still receive or still has a request."""
        container = self.engine.containers.get(instance)
        known = any(instance in worker.servers for worker in self.gateway.workers)
        if container is None or container.state != "running" or not known:
            return
        endpoint_state = self.gateway._endpoint_state(instance)
        was_cut = any(id == instance for id, _ in self.gateway.cuts)
        if endpoint_state.state == "admitted" or (not endpoint_state.drained and not was_cut):
            self.wrong.append(f"{instance} is stopped: {endpoint_state}")

    def _note(self, _logger: Any, _name: str, entry: MutableMapping[str, Any]) -> str:
        if entry.get("exc_info"):
            self.wrong.append(f"{entry['event']}: {traceback.format_exc()}")
        raise structlog.DropEvent

    # Requests and faults

    async def submit(self, command: Command) -> int | None:
        """Submit the command; return the deployment's id, or None if it is refused."""
        try:
            return await self.requests.submit(command, CI)
        except RequestError:
            return None

    async def apply_action(self, id: int, action: Action) -> None:
        """Pause, resume or abort the deployment unless that is refused."""
        with suppress(RequestError):
            await self.requests.apply_action(id, action, CI.by)

    async def deploy(self, image: str, **fields: Any) -> int | None:
        body = {"image": image, "healthcheck": CHECK, "progress_deadline_seconds": 60, "drain_timeout": 10, **fields}
        return await self.submit(commands.deploy(DeployRequest(SERVICE, body)))

    def busy(self, instance: str, seconds: float) -> None:
        """Keep one request in flight at the instance for this many seconds."""
        if instance in self.gateway.present.servers and self.gateway.present.servers[instance].state == "admitted":
            self.gateway.busy(instance, 1)
            asyncio.get_running_loop().call_later(seconds, self._finish, instance)

    def _finish(self, instance: str) -> None:
        for worker in self.gateway.workers:
            if instance in worker.servers:
                worker.servers[instance].in_flight = 0
        self.gateway._bury()

    def silence(self, seconds: float) -> None:
        self.gateway.silent = True
        asyncio.get_running_loop().call_later(seconds, lambda: setattr(self.gateway, "silent", False))

    def fail_test(self, instance: str, output: str = "") -> None:
        """Let the instance's own test fail from now on."""
        self.failing.add(instance)
        self.engine.set_health(instance, "unhealthy", output)

    def lose_engine(self, seconds: float) -> None:
        self.engine.become_unreachable()
        asyncio.get_running_loop().call_later(seconds, self.engine.become_reachable)

    # Final checks

    async def settle(self) -> None:
        """End all faults, then wait until everything is at rest."""
        self._well, self._crash_in = True, -1
        self.failing.clear()
        self.gateway.silent = False
        self.gateway._failures.clear()
        self.engine._failures.clear()
        self.engine._lost_events = 0
        self.engine.become_reachable()
        for reference in IMAGES:
            self.engine.behave(reference, Behaviour())
        for instance in list(self.gateway.present.servers):
            self.gateway.make_unhealthy(instance, healthy=True)
        for _ in range(400):
            paused = [row.id for row in self.rows(Deployment) if row.status == "paused"]
            for id in paused:
                await self.apply_action(id or 0, "resume")
            if all(row.status in TERMINAL for row in self.rows(Deployment)):
                break
            await asyncio.sleep(5)
        else:
            raise AssertionError(f"it does not end: {[(row.id, row.status, row.message) for row in self.rows(Deployment)]}")
        await asyncio.sleep(200)

    def rows(self, table: type[T]) -> list[T]:
        with self.store.read_session() as session:
            return list(session.exec(select(table)))

    def check(self) -> None:
        """Assert all that must hold at the end of any history."""
        assert not self.wrong, "\n".join(self.wrong)
        self._check_history()
        self._check_rest()

    def _check_history(self) -> None:
        """Assert one final status per deployment, only allowed transitions, and no event twice."""
        with self.store.read_session() as session:
            events = list(session.exec(select(Event).order_by(col(Event.id))))
        words = [status.value for status in Status]
        for row in self.rows(Deployment):
            reported = [event.type for event in events if event.deployment == row.id and event.type in words]
            assert reported[-1] == row.status and row.status in TERMINAL, f"{row.id}: {reported}, and it is {row.status}"
            for before, after in zip(["pending", *reported], reported, strict=False):
                if (before, after) != ("pending", "pending"):
                    assert after in TRANSITIONS[Status(before)], f"{row.id}: {reported}"
        for instance in self.rows(Instance):
            reported = [event.type for event in events if event.instance == instance.id]
            for once in ("instance_creating", "instance_stopped"):
                assert reported.count(once) <= 1, f"{instance.id}: {reported}"
            texts = [(event.type, event.message) for event in events if event.instance == instance.id]
            twice = [text for text, after in pairwise(texts) if text == after]
            assert not twice, f"{instance.id}: {twice}"

    def _check_rest(self) -> None:
        """Assert that the store matches what runs, and that the last successful deployment requested it."""
        services = {row.name: row for row in self.rows(Service)}
        living = {row.id: row for row in self.rows(Instance) if row.stopped_at is None}
        assert set(self.engine.containers) == set(living), "strays, or instances without a container"
        admitted = {id for id, server in self.gateway.present.servers.items() if server.state == "admitted"}
        assert admitted == set(living), f"admitted {admitted}, running {set(living)}"
        service = services.get(SERVICE)
        if service is None:
            return
        done = [row for row in self.rows(Deployment) if row.status == "succeeded" and row.started_at is not None]
        last = max(done, key=lambda row: row.finished_at or 0, default=None)
        if last is None or last.kind == "remove":
            assert service.revision is None and not living
            return
        assert (service.revision, service.replicas) == (last.revision, last.replicas)
        with self.store.read_session() as session:
            revision = session.get_one(Revision, (SERVICE, service.revision))
        assert len(living) == service.replicas
        assert all(row.hash == revision.hash and row.status == "serving" for row in living.values()), living
        assert all(container.auto_restart for container in self.engine.containers.values())
