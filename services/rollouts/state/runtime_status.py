"""Volatile status that is not stored: the controller writes it, the presenters read it."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any


@dataclass
class RuntimeStatus:
    """In-flight requests and last probes by instance id, warnings by service.

    It is empty after a start and is soon filled again.
    """

    in_flight: dict[str, int] = field(default_factory=dict)
    probes: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Instance id → {ok, status, error, at}."""
    warnings: dict[str, list[dict[str, str]]] = field(default_factory=dict)
    """Service → [{code, message}]."""
    registry_auth: dict[int, str] = field(default_factory=dict, repr=False)
    """Deployment → the credentials that its request brought for the pull. They are never written anywhere."""
    unknown_containers: list[str] = field(default_factory=list)
    """Instances whose containers have Sluice's labels but are unknown to the store. They are left alone.

    They exist after a backup was restored.
    """
    not_ready: dict[str, str] = field(default_factory=dict)
    """Part (engine, gateway, loop, ground, …) → why it is not ready; empty if all parts are ready.

    A part is not ready if it does not answer, has crashed, or has yet to start.
    """

    def by_service(self) -> dict[str | None, list[object]]:
        """Return a comparable list for each service: requests in flight, results of probes, warnings."""
        told: defaultdict[str | None, list[object]] = defaultdict(list)
        for id, count in self.in_flight.items():
            if count:
                told[_service(id)].append((id, count))
        for id, probe in self.probes.items():
            told[_service(id)].append((id, probe.get("ok"), probe.get("error")))
        for service, warnings in self.warnings.items():
            told[service].append(warnings)
        return told


def _service(instance: str) -> str:
    """Return the service of an instance id, which is `<service>-r<revision>-<n>`."""
    return instance.rpartition("-r")[0]
