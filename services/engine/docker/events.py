"""Events of the engine, and a cache of inspections that events invalidate."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import closing
from dataclasses import replace
from typing import Any

import docker
import structlog
from docker.errors import APIError

from services.backoff import Backoff
from services.engine.docker.client import FAILURES, ClientPool
from services.engine.docker.codec import SERVICE, nanoseconds, parse_container, parse_instance
from services.engine.docker.streams import StreamCancel
from services.engine.port import ContainerView, EngineEvent

log = structlog.get_logger(__name__)

_EVENT_TYPES = ["start", "die", "destroy", "health_status", "update", "oom", "pause", "unpause", "disconnect"]
_MIN_RECONNECT_DELAY, _MAX_RECONNECT_DELAY = 0.05, 2.0
_VIEW_TTL = 60.0
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
            for mapping in (self._changes, self._views, self._starts, self._deaths):
                mapping.clear()

    def disconnected(self) -> None:
        with self._lock:
            self._streams -= 1

    def invalidate(self, container_id: str) -> None:
        with self._lock:
            self._changes[container_id] = self._changes.get(container_id, 0) + 1
            self._views.pop(container_id, None)

    def remove(self, container_id: str) -> None:
        with self._lock:
            for mapping in (self._changes, self._views, self._starts, self._deaths):
                mapping.pop(container_id, None)

    def stamp(self, container_id: str) -> Stamp:
        """Return a stamp. Take it before an inspection and pass it to `store` or `record_start`."""
        with self._lock:
            return self._stamp(container_id)

    def store(self, view: ContainerView, signature: str, stamp: Stamp) -> None:
        """Cache a view, unless its container changed since the stamp was taken. `signature`: see `get`."""
        self.record_start(view, stamp)
        with self._lock:
            if stamp == self._stamp(view.container_id):
                self._views[view.container_id] = signature, view, self._monotonic() + _VIEW_TTL

    def get(self, container_id: str, signature: str) -> ContainerView | None:
        """Return a cached view that is still valid, otherwise None.

        `signature` is the state that the engine's list shows; it must equal the one that was cached with the view.
        """
        with self._lock:
            cached_signature, view, until = self._views.get(container_id, ("", None, 0.0))
            valid = self._streams > 0 and cached_signature == signature and self._monotonic() < until
            return view if valid else None

    def record_start(self, view: ContainerView, stamp: Stamp) -> None:
        """Record the view's start, unless that start has died or a stream has begun since the stamp was taken."""
        at = nanoseconds(view.started_at)
        with self._lock:
            last_start, _ = self._starts.get(view.container_id, (0, ""))
            if stamp[0] == self._connects and at > max(last_start, self._deaths.get(view.container_id, 0)):
                self._starts[view.container_id] = at, view.start_id

    def record_death(self, container_id: str, at: int) -> str:
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

    def __init__(self, clients: ClientPool, cache: InspectCache, name: str, network: str) -> None:
        self._clients = clients
        self._cache = cache
        self._name = name
        self._network = network

    def watch(self, stop: StreamCancel) -> Generator[EngineEvent]:
        """Yield events until `stop`. Blocks. Reconnects with increasing delays."""
        backoff = Backoff(_MIN_RECONNECT_DELAY, _MAX_RECONNECT_DELAY)
        while not stop.is_set:
            try:
                with closing(self._clients.new()) as client, closing(self._one_stream(client, stop)) as stream:
                    for event in stream:
                        if event.kind != "reconnected":
                            backoff.reset()
                        yield event
            except (*FAILURES, AttributeError, ValueError) as error:
                # The SDK raises the last two if its socket is closed during a read.
                if not stop.is_set and not backoff.grown:
                    log.warning("engine_events_broke_off", error=str(error))
            stop.wait(backoff.next())

    def _one_stream(self, client: docker.APIClient, stop: StreamCancel) -> Generator[EngineEvent]:
        # The engine answers before it has subscribed. `since` covers that gap; repeated events do no harm.
        # Events of networks have no labels, so the filter by label is here and not in the engine.
        filters = {"type": ["container", "network"], "event": _EVENT_TYPES}
        stream = client.events(since=int(time.time()), filters=filters, decode=True)
        stop.set_stream(stream)
        self._cache.connected()
        try:
            yield EngineEvent("reconnected")
            for message in stream:
                event = self._read(client, message)
                if event is not None:
                    yield event
        finally:
            self._cache.disconnected()

    def _read(self, client: docker.APIClient, message: Mapping[str, Any]) -> EngineEvent | None:
        container_id, attributes = message["Actor"]["ID"], message["Actor"]["Attributes"]
        if message["Type"] == "network":
            return self._read_disconnect(client, attributes)
        instance = parse_instance(attributes, self._name)
        if instance is None:
            return None
        self._cache.invalidate(container_id)
        action = message["Action"].partition(":")[0]
        subject: dict[str, Any] = {
            "service": attributes[SERVICE],
            "instance": instance,
            "container_id": container_id,
            "renamed": attributes.get("name") != f"{self._name}-{instance}",
        }
        if action == "die":
            at = message["timeNano"]
            start = self._cache.record_death(container_id, at) or self._inspect_start(client, container_id, at)
            return EngineEvent("die", **subject, start_id=start, exit_code=int(attributes.get("exitCode", -1)))
        if action == "destroy":
            self._cache.remove(container_id)
            return EngineEvent("destroy", **subject)
        if action == "start":
            return EngineEvent("start", **subject)
        return EngineEvent("health", **subject) if action in ("health_status", "pause", "unpause") else None

    def _read_disconnect(self, client: docker.APIClient, attributes: Mapping[str, Any]) -> EngineEvent | None:
        """Return the event of a running instance that lost Sluice's network; None for a container that ends."""
        if attributes.get("name") != self._network:
            return None
        self._cache.invalidate(attributes["container"])
        try:
            view = parse_container(client.inspect_container(attributes["container"]), self._name, self._network)
        except APIError:
            return None
        if view is None or view.state != "running" or view.restarting:
            return None
        event = EngineEvent(
            "disconnect", view.service, view.instance, view.container_id, view.start_id, renamed=view.renamed
        )
        # a container with an address was connected again, or has been started again since
        return event if view.address is None else replace(event, kind="health", start_id="")

    def _inspect_start(self, client: docker.APIClient, container_id: str, at: int) -> str:
        """Return the start that a death at `at` ended, if the engine still shows it; otherwise empty."""
        try:
            view = parse_container(client.inspect_container(container_id), self._name, self._network)
        except APIError:
            return ""
        return view.start_id if view is not None and nanoseconds(view.started_at) <= at else ""
