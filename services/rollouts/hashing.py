"""The hash of what runs in an instance: when it is equal, nothing needs to be replaced."""

from __future__ import annotations

import hashlib
import json

from services.spec import Healthcheck, ServiceSpec

RUNS = {
    "environment", "command", "entrypoint", "working_dir", "user", "resources", "volumes", "networks", "labels",
    "logging", "links", "stop_signal", "host_port",
}  # fmt: skip
"""The fields of the spec that are fixed when a container is made. The rest is policy, and replaces nothing."""


def instance_hash(image_id: str, port: int | None, healthcheck: Healthcheck, spec: ServiceSpec) -> str:
    """16 hexadecimal digits over image id, port, health check and RUNS (design.md §4)."""
    content = {
        "image_id": image_id,
        "port": port,
        "healthcheck": {**healthcheck.model_dump(mode="json"), "any_below_500": healthcheck.any_below_500},
        **spec.model_dump(mode="json", include=RUNS),
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
