"""What is true this second and not worth a row: the loop writes it, views read it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class Live:
    """In-flight requests and last probes by instance id, warnings by service. Empty after a start, soon filled again."""

    in_flight: dict[str, int] = field(default_factory=dict)
    probes: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Instance id → {ok, status, error, at}."""
    warnings: dict[str, list[dict[str, str]]] = field(default_factory=dict)
    """Service → [{code, message}]."""
    registry_auth: dict[int, str] = field(default_factory=dict, repr=False)
    """Deployment → the credentials that its call brought for the pull. Never written anywhere."""
    strangers: list[str] = field(default_factory=list)
    """Instances whose containers carry our labels and that the store does not know (a restored backup): left alone."""
    not_ready: dict[str, str] = field(default_factory=dict)
    """Part (engine, gateway, loop, ground) → why it does not answer, or has yet to begin; empty is ready."""
