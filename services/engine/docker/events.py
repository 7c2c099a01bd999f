"""What the engine tells by itself, and what may be remembered as long as it would tell of a change."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import closing
from typing import Any

import docker
import structlog
from docker.errors import APIError

from services.engine.docker.client import FAILURES, ClientPool
from services.engine.docker.codec import NAME, SERVICE, nanoseconds, parse_container, parse_instance
from services.engine.docker.streams import StreamCancel
from services.engine.port import ContainerView, EngineEvent

log = structlog.get_logger(__name__)

_TOLD = ["start", "die", "destroy", "health_status", "update", "oom"]
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 2.0
_HOLDS = 60.0
"""Seconds after which a view is looked at again, whatever was told: engines drop events for readers that are slow."""

Stamp = tuple[int, int]


class InspectCache:
    """Inspections that need not be made again, and which start of each container runs.

    An inspection costs milliseconds and a loop's turn looks at every instance. So a view is kept while at least one
    event stream is connected and has told of no change to its container. Threads share this.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._streams = 0
        self._connects = 0
        self._changes: dict[str, int] = {}
        self._views: dict[str, tuple[str, ContainerView, float]] = {}
        self._starts: dict[str, tuple[int, str]] = {}
        self._deaths: dict[str, int] = {}

    def connected(self) -> None:
        """A stream begins. What happened before it is not known."""
        with self._lock:
            self._connects += 1
            self._streams += 1
            for retained in (self._changes, self._views, self._starts, self._deaths):
                retained.clear()

    def disconnected(self) -> None:
        with self._lock:
            self._streams -= 1

    def changed(self, container_id: str) -> None:
        with self._lock:
            self._changes[container_id] = self._changes.get(container_id, 0) + 1
            self._views.pop(container_id, None)

    def gone(self, container_id: str) -> None:
        with self._lock:
            for retained in (self._changes, self._views, self._starts, self._deaths):
                retained.pop(container_id, None)

    def stamp(self, container_id: str) -> Stamp:
        """Take it before an inspection and hand it to `keep` or `saw`."""
        with self._lock:
            return self._stamp(container_id)

    def keep(self, view: ContainerView, sign: str, stamp: Stamp) -> None:
        """Remember a view, unless its container changed since the stamp was taken. `sign`: see `recall`."""
        self.saw(view, stamp)
        with self._lock:
            if stamp == self._stamp(view.container_id):
                self._views[view.container_id] = sign, view, self._monotonic() + _HOLDS

    def recall(self, container_id: str, sign: str) -> ContainerView | None:
        """A view that still holds. `sign` is what the engine's list shows of its state; both must agree."""
        with self._lock:
            known_sign, view, until = self._views.get(container_id, ("", None, 0.0))
            holds = self._streams > 0 and known_sign == sign and self._monotonic() < until
            return view if holds else None

    def saw(self, view: ContainerView, stamp: Stamp) -> None:
        """Remember which start it was, unless a death ended that one, or a stream has begun since."""
        at = nanoseconds(view.started_at)
        with self._lock:
            known, _ = self._starts.get(view.container_id, (0, ""))
            if stamp[0] == self._connects and at > max(known, self._deaths.get(view.container_id, 0)):
                self._starts[view.container_id] = at, view.start_id

    def died(self, container_id: str, at: int) -> str:
        """The start that a death at `at` (nanoseconds) ended; empty when none was seen. A container that starts again
        dies before it does, so the start seen since the last death is the one."""
        with self._lock:
            started, start = self._starts.get(container_id, (0, ""))
            self._deaths[container_id] = max(at, self._deaths.get(container_id, 0))
            if started > at:
                return ""
            self._starts.pop(container_id, None)
            return start

    def _stamp(self, container_id: str) -> Stamp:
        return self._connects, self._changes.get(container_id, 0)


class EventWatcher:
    """The events of the instances of the Sluice called `name`."""

    def __init__(self, clients: ClientPool, memory: InspectCache, name: str, network: str) -> None:
        self._clients = clients
        self._memory = memory
        self._name = name
        self._network = network

    def watch(self, stop: StreamCancel) -> Generator[EngineEvent]:
        """Blocks. Reconnects for ever, sooner at first, until `stop`."""
        pause = _FIRST_PAUSE
        while not stop.is_set:
            try:
                with closing(self._clients.new()) as client, closing(self._one_stream(client, stop)) as stream:
                    for event in stream:
                        if event.kind != "reconnected":
                            pause = _FIRST_PAUSE
                        yield event
            except (*FAILURES, AttributeError, ValueError) as error:
                # The last two are how the SDK fails when its socket is closed under a read.
                if not stop.is_set and pause == _FIRST_PAUSE:
                    log.warning("engine_events_broke_off", error=str(error))
            stop.wait(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)

    def _one_stream(self, client: docker.APIClient, stop: StreamCancel) -> Generator[EngineEvent]:
        # The engine answers before it has subscribed. `since` covers that gap; what it repeats does no harm.
        filters = {"type": "container", "label": [f"{NAME}={self._name}", SERVICE], "event": _TOLD}
        stream = client.events(since=int(time.time()), filters=filters, decode=True)
        stop.reading(stream)
        self._memory.connected()
        try:
            yield EngineEvent("reconnected")
            for told in stream:
                event = self._read(client, told)
                if event is not None:
                    yield event
        finally:
            self._memory.disconnected()

    def _read(self, client: docker.APIClient, told: Mapping[str, Any]) -> EngineEvent | None:
        container_id, about = told["Actor"]["ID"], told["Actor"]["Attributes"]
        instance = parse_instance(about, self._name)
        self._memory.changed(container_id)
        if instance is None or about.get("name") != f"{self._name}-{instance}":
            return None
        action = told["Action"].partition(":")[0]
        whose = {"service": about[SERVICE], "instance": instance, "container_id": container_id}
        if action == "die":
            start = self._memory.died(container_id, told["timeNano"]) or self._look(client, container_id, told["timeNano"])
            return EngineEvent("die", **whose, start=start, exit_code=int(about.get("exitCode", -1)))
        if action == "destroy":
            self._memory.gone(container_id)
            return EngineEvent("destroy", **whose)
        if action == "start":
            return EngineEvent("start", **whose)
        return EngineEvent("health", **whose) if action == "health_status" else None

    def _look(self, client: docker.APIClient, container_id: str, at: int) -> str:
        """The start that a death at `at` ended, as far as the engine still shows it."""
        try:
            view = parse_container(client.inspect_container(container_id), self._name, self._network)
        except APIError:
            return ""
        return view.start_id if view is not None and nanoseconds(view.started_at) <= at else ""
