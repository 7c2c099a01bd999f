"""The fake engine's containers, and what the processes in them do."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal

from services.engine.port import ContainerView, EngineEvent, InstanceSpec

Health = Literal["none", "starting", "healthy", "unhealthy"]


@dataclass(frozen=True)
class Behaviour:
    """What the process in a container does. Times in seconds."""

    exits_at_once: int | None = None
    """The code with which it exits as soon as it is started."""
    exits_after: tuple[float, int] | None = None
    """(seconds after its start, exit code)."""
    start_takes: float = 0
    """How long the engine takes to start it."""
    stop_takes: float | None = 0
    """From the stop signal to its exit; None: it ignores the signal."""
    stop_code: int = 0
    log: str = ""
    """What it writes at each start."""


@dataclass
class Container:
    """One of the fake's containers; tests may look."""

    spec: InstanceSpec
    id: str
    state: Literal["created", "running", "restarting", "exited"] = "created"
    started_at: str = "0001-01-01T00:00:00Z"
    exit_code: int | None = None
    oom_killed: bool = False
    restarts: int = 0
    starts: int = 0
    health: Health = "none"
    auto_restart: bool = False
    log: list[str] = field(default_factory=list)
    log_times: list[str] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def view(self) -> ContainerView:
        spec = self.spec
        return ContainerView(
            instance=spec.id,
            service=spec.service,
            revision=spec.revision,
            deployment=spec.deployment,
            slot=spec.slot,
            hash=spec.hash,
            container_id=self.id,
            state="running" if self.state == "restarting" else self.state,
            started_at=self.started_at,
            address=spec.address,
            exit_code=self.exit_code if self.state == "exited" else None,
            oom_killed=self.oom_killed,
            restarts=self.restarts,
            health=self.health,
            auto_restart=self.auto_restart,
        )

    def write(self, text: str, at: float) -> None:
        """Lines of its log, of a time."""
        for line in text.removesuffix("\n").split("\n") if text else ():
            self.log.append(line)
            self.log_times.append(timestamp(at, len(self.log)))

    def first(self, tail: int, since: float | None) -> int:
        """The number of the first line that was asked for."""
        older = sum(time < timestamp(since, 0) for time in self.log_times) if since else 0
        return max(older, len(self.log) - tail, 0)

    def line(self, number: int, timestamps: bool) -> str:
        return f"{self.log_times[number]} {self.log[number]}" if timestamps else self.log[number]

    def wake(self) -> None:
        """Tell those who follow its log."""
        self.changed.set()
        self.changed = asyncio.Event()

    def event(self, kind: Literal["start", "die", "destroy", "health"], code: int | None = None) -> EngineEvent:
        return EngineEvent(
            kind,
            service=self.spec.service,
            instance=self.spec.id,
            container_id=self.id,
            start=self.view.start_id if kind == "die" else "",
            exit_code=code,
        )


def timestamp(seconds: float, start: int) -> str:
    """The engine's own form, with nanoseconds; two starts of a container at one time still differ."""
    at = datetime.fromtimestamp(seconds, UTC)
    return f"{at:%Y-%m-%dT%H:%M:%S}.{at.microsecond:06d}{start % 1000:03d}Z"
