"""The steps of a plan, as data: the same plan is shown, tested and executed. Each is idempotent."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Create:
    """Reserve an id and an address for slot `slot`; the start follows in the same turn."""

    slot: int


@dataclass(frozen=True)
class Start:
    """Make and start the container of a reserved instance."""

    instance: str


@dataclass(frozen=True)
class Admit:
    """It has proved itself: let requests go to it, and let the engine bring it back when it ends."""

    instance: str


@dataclass(frozen=True)
class Recall:
    """It was on its way out and is wanted again."""

    instance: str


@dataclass(frozen=True)
class Drain:
    """It is to go from now on; the routers send it nothing new."""

    instance: str


@dataclass(frozen=True)
class Withdraw:
    """It is leaving and a router still admits it."""

    instance: str


@dataclass(frozen=True)
class ForceClose:
    """Its drain_timeout is over: end what it still has, and say so."""

    instance: str


@dataclass(frozen=True)
class Stop:
    """Settled: stop signal, then SIGKILL after its grace."""

    instance: str


@dataclass(frozen=True)
class Remove:
    """It has exited: forget it in the routers and remove its container."""

    instance: str


Step = Create | Start | Admit | Recall | Drain | Withdraw | ForceClose | Stop | Remove


@dataclass(frozen=True)
class Succeeded:
    """What was wanted serves, and everything else has gone."""


@dataclass(frozen=True)
class Failed:
    """It will not come to pass: `reason` for machines, `message` for people, and the instance that showed it."""

    reason: str
    message: str
    instance: str | None = None


Outcome = Succeeded | Failed
MAX_INSTANCES = 1000
"""More than one service can have."""


@dataclass(frozen=True)
class Progress:
    """Counts as the API shows them."""

    desired: int = 0
    ready: int = 0
    serving: int = 0
    old_serving: int = 0
    draining: int = 0
    failed: int = 0

    @property
    def milestone(self) -> int:
        """Grows with every instance that gets further, on its way in or out: what extends the progress deadline."""
        return 2 * self.serving + self.ready - self.old_serving - self.draining + MAX_INSTANCES


@dataclass(frozen=True)
class Plan:
    """The next steps (at most one an instance: they run side by side), a verdict once there is one, and when to look again
    (a time). With `Failed` there are no steps, unless the deployment is paused: its verdict may then be nothing new."""

    steps: tuple[Step, ...]
    progress: Progress
    outcome: Outcome | None = None
    wake_at: float | None = None
