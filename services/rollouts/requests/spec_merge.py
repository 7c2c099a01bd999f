"""The merge of a request with the current spec (RFC 7396).

Profiles are layers that are never merged into the base.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

UNVERSIONED_FIELD = "replicas"
"""Field that is stored with the service, so that image-only deployments and rollbacks keep its value."""


@dataclass(frozen=True)
class Layers:
    """The layers of a spec.

    `base` is the spec that is kept. `overrides` are the request fields that apply over the profile; they are kept for as
    long as the profile stays the same.
    """

    base: dict[str, Any]
    profile: str | None
    overrides: dict[str, Any]

    def effective(self) -> dict[str, Any]:
        """Return the base, then the profile, then the overrides, merged without `replicas`."""
        profiles = self.base.get("profiles") or {}
        layer = profiles.get(self.profile, {}) if self.profile is not None else {}
        merged: dict[str, Any] = merge_patch(merge_patch(self.base, layer), self.overrides)
        merged.pop(UNVERSIONED_FIELD, None)
        return merged


def apply_layers(
    current: Layers | None, fields: dict[str, Any], mode: str, profile_named: bool, profile: str | None
) -> tuple[Layers, int | None]:
    """Apply a request to the current layers.

    Returns the new layers, and the replicas that the request names by itself or by its profile.
    """
    if current is None or mode == "replace":
        base = merge_patch({}, fields)
        retained = profile if profile_named else (current.profile if current else None)
        layers = Layers(base, retained, {})
    else:
        changed = profile_named and profile != current.profile
        retained = profile if profile_named else current.profile
        overrides = {} if changed else current.overrides
        if retained is not None:
            patch = {name: value for name, value in fields.items() if name not in ("profiles", UNVERSIONED_FIELD)}
            brings_profiles = fields.get("profiles") is not None  # a whole spec: the profile applies over the base
            overrides = overrides if brings_profiles else combine_patches(overrides, patch)
        layers = Layers(merge_patch(current.base, fields), retained, overrides if retained is not None else {})
    replicas = fields.get(UNVERSIONED_FIELD)
    if replicas is None and profile_named and profile is not None:
        profile_fields = (layers.base.get("profiles") or {}).get(profile) or {}
        replicas = profile_fields.get(UNVERSIONED_FIELD)
    base = {name: value for name, value in layers.base.items() if name != UNVERSIONED_FIELD}
    return Layers(base, layers.profile, layers.overrides), replicas


def merge_patch(target: Any, patch: Any, *, spec: bool = True) -> Any:
    """Merge a patch by RFC 7396: objects merge, null removes, everything else replaces.

    A spec's own `port` is an exception (`spec`: target and patch are specs or profiles): null makes the service a worker. An
    absent `port` is the image's only EXPOSEd port.
    """
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None and not (spec and name == "port"):
            result.pop(name, None)
        elif spec and name == "profiles" and isinstance(value, dict):
            before = result.get(name) or {}
            layers = {key: merge_patch(before.get(key), layer) for key, layer in value.items() if layer is not None}
            result[name] = {**{key: layer for key, layer in before.items() if key not in value}, **layers}
        elif value is None:
            result[name] = None
        else:
            result[name] = merge_patch(result.get(name), value, spec=False)
    return result


def combine_patches(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """Combine two patches into one. Nulls stay, because they must still remove a field later."""
    result = dict(first)
    for name, value in second.items():
        before = result.get(name)
        result[name] = combine_patches(before, value) if isinstance(before, dict) and isinstance(value, dict) else value
    return result
