"""Volatile status that is not stored: the controller writes it, the presenters read it."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from services.rollouts.state.recognition import UnknownContainer

CRASH_LOOPING = {
    "code": "crash_looping",
    "message": "crash looping: instances keep exiting or failing checks; they restart with increasing delays",
}


@dataclass(frozen=True)
class InstanceStop:
    """The stop of an instance: `signal` sent at `began_at` (epoch), SIGKILL `grace` seconds later."""

    began_at: float
    signal: str
    grace: float


class RuntimeStatus:
    """In-flight requests, last checks and stops by instance id, warnings by service, unknown containers.

    It is empty after a start and is soon filled again. Presenters read it in reader threads: each method returns a copy
    or a value that is never changed.
    """

    def __init__(self) -> None:
        self._in_flight: dict[str, int] = {}
        self._probes: dict[str, Mapping[str, Any]] = {}
        self._stops: dict[str, InstanceStop] = {}
        self._warnings: dict[str, list[dict[str, str]]] = {}
        self._unknown_containers: tuple[UnknownContainer, ...] = ()

    def set_in_flight(self, counts: Mapping[str, int]) -> bool:
        """Store the in-flight counts of instances; return whether a count changed."""
        changed = any(self._in_flight.get(id, 0) != count for id, count in counts.items())
        self._in_flight.update(counts)
        return changed

    def set_probe(self, instance: str, probe: Mapping[str, Any]) -> bool:
        """Store the last check of an instance (`ok`, `status`, `error`, `at`), unless a later one is stored.

        Sluice, the gateway and the engine check instances. Return whether `ok` or `error` changed.
        """
        before = self._probes.get(instance, {})
        if (before.get("at") or 0) > (probe.get("at") or math.inf):
            return False
        self._probes[instance] = probe
        return (before.get("ok"), before.get("error")) != (probe.get("ok"), probe.get("error"))

    def set_stop(self, instance: str, stop: InstanceStop) -> None:
        """Store the stop of an instance, until `forget_instance`."""
        self._stops[instance] = stop

    def forget_instance(self, instance: str) -> None:
        """Delete the in-flight count, the probe and the stop of an instance that is gone."""
        self._stops.pop(instance, None)
        self._in_flight.pop(instance, None)
        self._probes.pop(instance, None)

    def set_warnings(self, service: str, warnings: list[dict[str, str]]) -> bool:
        """Replace the warnings of a service: `code` and `message` of each. Return whether they changed."""
        changed = self.warnings(service) != warnings
        if warnings:
            self._warnings[service] = warnings
        else:
            self._warnings.pop(service, None)
        return changed

    def set_unknown_containers(self, containers: Iterable[UnknownContainer]) -> None:
        """Store the containers that have Sluice's labels but are unknown to the store.

        They are left alone. They exist after a backup was restored, and as copies of instances' containers.
        """
        self._unknown_containers = tuple(containers)

    def in_flight(self, instance: str) -> int:
        return self._in_flight.get(instance, 0)

    def in_flight_counts(self) -> dict[str, int]:
        """Return instance id → requests in flight."""
        return dict(self._in_flight)

    def in_flight_by_service(self) -> Counter[str]:
        """Return service → requests in flight, over all its instances."""
        counts: Counter[str] = Counter()
        for id, count in self.in_flight_counts().items():
            counts[_service(id)] += count
        return counts

    def probe(self, instance: str) -> Mapping[str, Any] | None:
        return self._probes.get(instance)

    def stop(self, instance: str) -> InstanceStop | None:
        """Return the stop of an instance that is being stopped; None for any other."""
        return self._stops.get(instance)

    def warnings(self, service: str) -> list[dict[str, str]]:
        return self._warnings.get(service, [])

    def crash_looping(self) -> frozenset[str]:
        """Return the services that have the warning CRASH_LOOPING."""
        by_service = self._warnings.copy()
        return frozenset(name for name, warnings in by_service.items() if CRASH_LOOPING in warnings)

    def unknown_containers(self) -> list[UnknownContainer]:
        return list(self._unknown_containers)

    def by_service(self) -> dict[str | None, list[object]]:
        """Return a comparable list for each service: requests in flight, results of probes, stops, warnings."""
        status: defaultdict[str | None, list[object]] = defaultdict(list)
        for id, count in self._in_flight.items():
            if count:
                status[_service(id)].append((id, count))
        for id, probe in self._probes.items():
            status[_service(id)].append((id, probe.get("ok"), probe.get("error")))
        for id, stop in self._stops.items():
            status[_service(id)].append((id, stop))
        for service, warnings in self._warnings.items():
            status[service].append(warnings)
        return status


def _service(instance: str) -> str:
    """Return the service of an instance id, which is `<service>-r<revision>-<n>`."""
    return instance.rpartition("-r")[0]
