"""Containers of the fake engine, and the behaviour of their processes."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal

from services.engine.port import ContainerView, EngineEvent, HealthResult, InstanceSpec

Health = Literal["none", "starting", "healthy", "unhealthy"]


@dataclass(frozen=True)
class Behaviour:
    """Behaviour of a container's process. Times in seconds."""

    exits_at_once: int | None = None
    """Exit code if it exits as soon as it is started."""
    exits_after: tuple[float, int] | None = None
    """(seconds after its start, exit code)."""
    start_takes: float = 0
    """Seconds that the engine takes to start it."""
    stop_takes: float | None = 0
    """Seconds from the stop signal to its exit; None: it ignores the signal."""
    stop_code: int = 0
    log: str = ""
    """Log text written at each start."""


@dataclass
class Container:
    """A container of the fake engine; tests may read its fields."""

    spec: InstanceSpec
    id: str
    state: Literal["created", "running", "restarting", "exited"] = "created"
    started_at: str = "0001-01-01T00:00:00Z"
    exit_code: int | None = None
    oom_killed: bool = False
    restarts: int = 0
    starts: int = 0
    health: Health = "none"
    last_test: HealthResult | None = None
    paused: bool = False
    address: str | None = field(init=False)
    """Its address in Sluice's network."""
    name: str = ""
    """Its name if it was renamed; otherwise the instance's id is its name."""
    auto_restart: bool = False
    log: list[str] = field(default_factory=list)
    log_times: list[str] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.address = self.spec.address

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
            address=self.address,
            exit_code=self.exit_code if self.state == "exited" else None,
            oom_killed=self.oom_killed,
            restarts=self.restarts,
            health=self.health,
            auto_restart=self.auto_restart,
            last_test=self.last_test,
            paused=self.paused,
            restarting=self.state == "restarting",
            name=self.name or spec.id,
            renamed=bool(self.name),
        )

    def write(self, text: str, at: float) -> None:
        """Append lines to its log, with this time."""
        for line in text.removesuffix("\n").split("\n") if text else ():
            self.log.append(line)
            self.log_times.append(timestamp(at, len(self.log)))

    def first(self, tail: int, since: float | None) -> int:
        """Return the index of the first requested line."""
        older = sum(time < timestamp(since, 0) for time in self.log_times) if since else 0
        return max(older, len(self.log) - tail, 0)

    def line(self, number: int, timestamps: bool) -> str:
        return f"{self.log_times[number]} {self.log[number]}" if timestamps else self.log[number]

    def wake(self) -> None:
        """Wake the followers of its log."""
        self.changed.set()
        self.changed = asyncio.Event()

    def event(
        self, kind: Literal["start", "die", "destroy", "health", "disconnect"], code: int | None = None
    ) -> EngineEvent:
        return EngineEvent(
            kind,
            service=self.spec.service,
            instance=self.spec.id,
            container_id=self.id,
            start_id=self.view.start_id if kind in ("die", "disconnect") else "",
            exit_code=code,
            renamed=bool(self.name),
        )


def timestamp(seconds: float, start: int) -> str:
    """Format a time as the engine does, with nanoseconds; two starts at the same time still differ."""
    at = datetime.fromtimestamp(seconds, UTC)
    return f"{at:%Y-%m-%dT%H:%M:%S}.{at.microsecond:06d}{start % 1000:03d}Z"
