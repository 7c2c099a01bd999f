"""Engine specifications of instances for tests, with container fields given flat as in a service's spec."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from services.engine.port import InstanceSpec
from services.spec import ContainerFields

OWN_FIELDS = {field.name for field in fields(InstanceSpec)}


def make_instance_spec(id: str, **given: Any) -> InstanceSpec:
    """Return the specification of `id` (`<service>-r<revision>-<slot>`).

    `given`: fields of InstanceSpec, and ContainerFields. If both have a field, InstanceSpec's is meant.
    """
    service, _, rest = id.rpartition("-r")
    revision, _, slot = rest.partition("-")
    container = {name: value for name, value in given.items() if name not in OWN_FIELDS}
    own = {name: value for name, value in given.items() if name in OWN_FIELDS}
    defaults = {
        "service": service,
        "revision": int(revision),
        "deployment": 1,
        "slot": int(slot),
        "hash": "a1b2c3",
        "image_id": "sha256:1",
        "address": "10.203.0.5",
        "port": 8000,
        "fields": ContainerFields.model_validate(container),
    }
    return InstanceSpec(id=id, **{**defaults, **own})
