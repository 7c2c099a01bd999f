"""The steps of a plan, as data: the same plan is shown, tested and executed. Each step is idempotent."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Create:
    """A step that reserves an id and an address for slot `slot`; the start follows in the same reconcile."""

    slot: int


@dataclass(frozen=True)
class Start:
    """A step that creates and starts the container of a reserved instance."""

    instance: str


@dataclass(frozen=True)
class Admit:
    """A step that lets requests go to a ready instance, and lets the engine restart its container."""

    instance: str


@dataclass(frozen=True)
class Recall:
    """A step that takes a draining instance back, because it matches the desired state again."""

    instance: str


@dataclass(frozen=True)
class MarkDraining:
    """A step that marks an instance as draining.

    The instance must go from then on, and the routers send it no new requests.
    """

    instance: str


@dataclass(frozen=True)
class Withdraw:
    """A step that stops new requests to an instance that a router still admits.

    The instance is draining, or is not ready any more.
    """

    instance: str


@dataclass(frozen=True)
class ForceClose:
    """A step that ends an instance's requests still in flight after `drain_timeout`, and reports them."""

    instance: str


@dataclass(frozen=True)
class Stop:
    """A step that stops a drained instance: stop signal, then SIGKILL after the instance's grace period."""

    instance: str


@dataclass(frozen=True)
class Remove:
    """A step that removes an exited instance from the routers, and removes its container."""

    instance: str


Step = Create | Start | Admit | Recall | MarkDraining | Withdraw | ForceClose | Stop | Remove


@dataclass(frozen=True)
class Succeeded:
    """The outcome if the desired instances serve and all other instances are gone."""


@dataclass(frozen=True)
class Failed:
    """The outcome if the deployment cannot succeed.

    `reason` is for machines, `message` for people, and `instance` is the instance that showed the failure.
    """

    reason: str
    message: str
    instance: str | None = None


Outcome = Succeeded | Failed
MAX_INSTANCES = 1000
"""An upper bound of the instances of one service."""


@dataclass(frozen=True)
class Progress:
    """The counts of a deployment, as the API shows them."""

    desired: int = 0
    ready: int = 0
    serving: int = 0
    old_serving: int = 0
    draining: int = 0
    failed: int = 0

    @property
    def milestone(self) -> int:
        """A number that grows with every instance that gets further, when it starts or when it drains.

        Growth of the number extends the progress deadline.
        """
        return 2 * self.serving + self.ready - self.old_serving - self.draining + MAX_INSTANCES


@dataclass(frozen=True)
class Plan:
    """The next steps, the progress, the outcome if there is one, and when to plan again.

    There is at most one step per instance, because the steps run concurrently. `requeue_at` is in seconds since the epoch.
    With the outcome `Failed` there are no steps, unless the deployment is paused: its failure may be known already.
    """

    steps: tuple[Step, ...]
    progress: Progress
    outcome: Outcome | None = None
    requeue_at: float | None = None
