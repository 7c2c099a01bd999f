"""The hash of what a container is made from: instances with an equal hash need no replacement."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from services.spec import LOG_ROTATION, ContainerFields, Healthcheck, HostPort, Logging, Resources, VolumeMount

ALWAYS: Mapping[type[BaseModel], frozenset[str]] = {
    ContainerFields: frozenset({
        "environment", "command", "entrypoint", "working_dir", "user", "resources", "volumes", "networks", "labels",
        "logging", "links", "stop_signal", "host_port",
    }),
    Healthcheck: frozenset({
        "path", "port", "headers", "expect_json", "tcp", "test", "disable", "interval", "timeout", "retries", "start_period",
    }),
    HostPort: frozenset({"auto", "exclude"}),
    Logging: frozenset({"driver", "options"}),
    Resources: frozenset({"cpus", "memory", "pids"}),
    VolumeMount: frozenset({"type", "source", "target", "read_only", "shared"}),
}  # fmt: skip
"""Fields that are hashed even at their defaults. Nothing may be added here.

A new field is hashed only if it differs from its default, so that an upgrade of Sluice leaves the hashes of existing
containers as they are.
"""


def instance_hash(image_id: str, port: int | None, healthcheck: Healthcheck, fields: ContainerFields) -> str:
    """Return 16 hexadecimal digits over image id, port, health check and ContainerFields (docs/api.md)."""
    content = {
        "image_id": image_id,
        "port": port,
        "healthcheck": {**_hashed(healthcheck), "any_below_500": healthcheck.any_below_500},
        **_hashed(fields, set(ContainerFields.model_fields)),
        "logging": {"driver": fields.logging.driver, "options": _log_options(fields.logging)},
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def _hashed(part: BaseModel, fields: set[str] | None = None) -> dict[str, Any]:
    """Return the model's fields as JSON, without fields at their defaults that are not in ALWAYS."""
    always = next((names for model, names in ALWAYS.items() if isinstance(part, model)), frozenset())
    kinds = type(part).model_fields
    return {
        name: _nested(getattr(part, name), dumped)
        for name, dumped in part.model_dump(mode="json", include=fields).items()
        if name in always or getattr(part, name) != kinds[name].get_default(call_default_factory=True)
    }


def _log_options(logging: Logging) -> Mapping[str, str]:
    """Return the log options to hash.

    Options that are not given are hashed as json-file's for every driver, as in the hashes of existing containers.
    """
    return logging.options if "options" in logging.model_fields_set else dict(LOG_ROTATION)


def _nested(value: Any, dumped: Any) -> Any:
    if isinstance(value, BaseModel):
        return _hashed(value)
    if isinstance(value, list):
        return [_nested(*pair) for pair in zip(value, dumped, strict=True)]
    return dumped
