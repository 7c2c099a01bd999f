"""Controller simulation that crashes at given points and restarts as a new run; the engine survives."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from sqlmodel import col, select

from services.errors import RequestError
from services.readiness import Readiness
from services.rollouts.reconciler.controller import Controller
from services.rollouts.reconciler.crash_points import POINTS, CrashPoints
from services.rollouts.reconciler.ports import Ports
from services.rollouts.requests.admission import AdmissionRules
from services.rollouts.requests.pull_credentials import PullCredentials
from services.rollouts.requests.submit import Submitter
from services.rollouts.state.runtime_status import RuntimeStatus
from services.rollouts.state.status import TERMINAL
from services.store.events import ChangeNotifier
from services.store.tables import Deployment, Event, Instance, Meta
from tests.support.controller_simulation import CI, ControllerSimulation

AWAY = 1.0
"""Seconds between a crash and the next run."""


class Died(BaseException):
    """The process has crashed; nothing catches this exception."""


class SurvivingEngine:
    """Engine that completes a call even if its caller has crashed."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._engine, name)
        if name not in ("start", "enable_auto_restart", "stop", "remove"):
            return method

        async def outliving(*words: Any) -> Any:
            return await asyncio.shield(asyncio.ensure_future(method(*words)))

        return outliving


class RecordingCrashPoints(CrashPoints):
    """Crash points that record each point passed, and crash at the selected ones."""

    def __init__(self, simulation: CrashingSimulation) -> None:
        super().__init__()
        self._life = simulation

    def reached(self, point: str, service: str = "") -> None:
        assert point in POINTS, f"{point} has no name"
        self._life.been.append(point)
        if self._life.deaths and self._life.deaths[0](self._life.been):
            self._life.deaths.pop(0)
            self._life.die()
            raise Died(point)


class CrashingSimulation(ControllerSimulation):
    """Simulation with crashes.

    `deaths`: one predicate for each crash, in order; each gets the points that the controller passed in this run.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.been: list[str] = []
        self.deaths: list[Callable[[list[str]], bool]] = []

    def die(self) -> None:
        self._crashed.set()

    async def _supervise(self) -> None:
        while True:
            self._run += 1
            with self.store.write_session() as session:
                session.merge(Meta(key="run", value=str(self._run)))
            self._crashed.clear()
            listeners, engine, credentials = ChangeNotifier(), SurvivingEngine(self.engine), PullCredentials()
            ports = Ports(self.store, self.clock, engine, [self.gateway])
            self.runner = Controller(
                ports, listeners, RuntimeStatus(), Readiness(), credentials, AdmissionRules(), RecordingCrashPoints(self)
            )
            self.requests = Submitter(
                self.store, self.clock, self.engine, listeners, self.runner.enqueue, AdmissionRules(), credentials
            )
            running = asyncio.create_task(self._keep_running(self.runner))
            try:
                await self._crashed.wait()
            finally:
                running.cancel()
                await asyncio.gather(running, return_exceptions=True)
            self.crashes += 1
            self.been.clear()
            await asyncio.sleep(AWAY)

    async def rest(self) -> None:
        """Wait for everything that is still to happen."""
        self.deaths, self._well = [], True
        await asyncio.sleep(40)

    async def until(self, condition: Callable[[], bool], within: float = 600) -> None:
        async with asyncio.timeout(within):
            while not condition():  # noqa: ASYNC110  (virtual time)
                await asyncio.sleep(0.05)

    async def insist(self, id: int, action: Literal["pause", "resume", "abort"]) -> None:
        """Pause, resume or abort the deployment. AssertionError if that is refused, as after its end."""
        await self.until(lambda: self.deployment(id).status != "pending")
        try:
            await self.requests.apply_action(id, action, CI.by)
        except RequestError as refusal:
            raise AssertionError(f"{action}: {refusal.detail}") from refusal

    async def ended(self, id: int | None) -> Deployment:
        assert id is not None
        await self.until(lambda: self.deployment(id).status in TERMINAL)
        return self.deployment(id)

    def deployment(self, id: int) -> Deployment:
        return next(row for row in self.rows(Deployment) if row.id == id)

    def living(self) -> list[Instance]:
        return [row for row in self.rows(Instance) if row.stopped_at is None]

    def told(self, deployment: int, *types: str) -> list[Event]:
        with self.store.read_session() as session:
            query = select(Event).where(Event.deployment == deployment, col(Event.type).in_(types)).order_by(col(Event.id))
            return list(session.exec(query))

    def check_nothing_twice(self) -> None:
        """Assert that no event occurs twice for one start of an instance or for one deployment.

        A recall counts as a new start; `progress` events of a deployment may repeat.
        """
        with self.store.read_session() as session:
            events = list(session.exec(select(Event).order_by(col(Event.id))))
        starts: Counter[str] = Counter()
        seen: Counter[tuple[Any, ...]] = Counter()
        for event in events:
            if event.instance is not None:
                starts[event.instance] += event.type == "instance_starting" or "matches again" in event.message
                seen[(event.instance, starts[event.instance], event.type, event.message)] += 1
            elif event.type != "progress":
                seen[(event.deployment, event.type, event.message)] += 1
        assert not (twice := [what for what, times in seen.items() if times > 1]), twice
