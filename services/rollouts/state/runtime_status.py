"""What is true this second and not worth a row: the loop writes it, views read it."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any


@dataclass
class RuntimeStatus:
    """In-flight requests and last probes by instance id, warnings by service. Empty after a start, soon filled again."""

    in_flight: dict[str, int] = field(default_factory=dict)
    probes: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Instance id → {ok, status, error, at}."""
    warnings: dict[str, list[dict[str, str]]] = field(default_factory=dict)
    """Service → [{code, message}]."""
    registry_auth: dict[int, str] = field(default_factory=dict, repr=False)
    """Deployment → the credentials that its call brought for the pull. Never written anywhere."""
    unknown_containers: list[str] = field(default_factory=list)
    """Instances whose containers carry our labels and that the store does not know (a restored backup): left alone."""
    not_ready: dict[str, str] = field(default_factory=dict)
    """Part (engine, gateway, loop, ground) → why it does not answer, or has yet to begin; empty is ready."""

    def by_service(self) -> dict[str | None, list[object]]:
        """What of it concerns each service, to be compared: requests in flight, how probes went, warnings."""
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
    """Whose instance it is: its id is `<service>-r<revision>-<n>`."""
    return instance.rpartition("-r")[0]
