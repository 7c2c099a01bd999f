"""Events of the engine, and a cache of inspections that events invalidate."""

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
"""Seconds after which a view expires even without an event: engines drop events for slow readers."""

Stamp = tuple[int, int]


class InspectCache:
    """Cache of inspections, and record of the running start of each container. Thread-safe.

    An inspection costs milliseconds, and each reconcile observes every instance. Hence a view is kept as long as at
    least one event stream is connected and has reported no change of its container.
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
        """Record the start of a stream.

        Everything cached before is dropped, because earlier events are unknown.
        """
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
        """Return a stamp. Take it before an inspection and pass it to `keep` or `saw`."""
        with self._lock:
            return self._stamp(container_id)

    def keep(self, view: ContainerView, sign: str, stamp: Stamp) -> None:
        """Cache a view, unless its container changed since the stamp was taken. `sign`: see `recall`."""
        self.saw(view, stamp)
        with self._lock:
            if stamp == self._stamp(view.container_id):
                self._views[view.container_id] = sign, view, self._monotonic() + _HOLDS

    def recall(self, container_id: str, sign: str) -> ContainerView | None:
        """Return a cached view that is still valid, otherwise None.

        `sign` is the state that the engine's list shows; it must equal the one that was cached with the view.
        """
        with self._lock:
            known_sign, view, until = self._views.get(container_id, ("", None, 0.0))
            holds = self._streams > 0 and known_sign == sign and self._monotonic() < until
            return view if holds else None

    def saw(self, view: ContainerView, stamp: Stamp) -> None:
        """Record the view's start, unless that start has died or a stream has begun since the stamp was taken."""
        at = nanoseconds(view.started_at)
        with self._lock:
            known, _ = self._starts.get(view.container_id, (0, ""))
            if stamp[0] == self._connects and at > max(known, self._deaths.get(view.container_id, 0)):
                self._starts[view.container_id] = at, view.start_id

    def died(self, container_id: str, at: int) -> str:
        """Return the start that a death at `at` (nanoseconds) ended; empty if that start was not seen.

        A container dies before it starts again, so the start seen since its previous death is the right one.
        """
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
    """Watcher of the events of the instances of the Sluice called `name`."""

    def __init__(self, clients: ClientPool, memory: InspectCache, name: str, network: str) -> None:
        self._clients = clients
        self._memory = memory
        self._name = name
        self._network = network

    def watch(self, stop: StreamCancel) -> Generator[EngineEvent]:
        """Yield events until `stop`. Blocks. Reconnects with increasing delays."""
        pause = _FIRST_PAUSE
        while not stop.is_set:
            try:
                with closing(self._clients.new()) as client, closing(self._one_stream(client, stop)) as stream:
                    for event in stream:
                        if event.kind != "reconnected":
                            pause = _FIRST_PAUSE
                        yield event
            except (*FAILURES, AttributeError, ValueError) as error:
                # The SDK raises the last two if its socket is closed during a read.
                if not stop.is_set and pause == _FIRST_PAUSE:
                    log.warning("engine_events_broke_off", error=str(error))
            stop.wait(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)

    def _one_stream(self, client: docker.APIClient, stop: StreamCancel) -> Generator[EngineEvent]:
        # The engine answers before it has subscribed. `since` covers that gap; repeated events do no harm.
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
            return EngineEvent("die", **whose, start_id=start, exit_code=int(about.get("exitCode", -1)))
        if action == "destroy":
            self._memory.gone(container_id)
            return EngineEvent("destroy", **whose)
        if action == "start":
            return EngineEvent("start", **whose)
        return EngineEvent("health", **whose) if action == "health_status" else None

    def _look(self, client: docker.APIClient, container_id: str, at: int) -> str:
        """Return the start that a death at `at` ended, if the engine still shows it; otherwise empty."""
        try:
            view = parse_container(client.inspect_container(container_id), self._name, self._network)
        except APIError:
            return ""
        return view.start_id if view is not None and nanoseconds(view.started_at) <= at else ""
