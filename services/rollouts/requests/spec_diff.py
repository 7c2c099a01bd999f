"""The differences between two specs, field by field, for display."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from services.redaction import redacted
from services.store.tables import Revision

_ABSENT = object()


@dataclass(frozen=True)
class FieldChange:
    """A changed field of a spec.

    `field` is dotted (`environment.LOG_LEVEL`). `old` is None if the field was added, `new` is None if it was removed.
    """

    field: str
    change: Literal["added", "removed", "changed"]
    old: Any
    new: Any


def diff_specs(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[FieldChange]:
    """Return the changed fields. Objects are compared field by field, every other value as a whole.

    An empty object has no fields, so it makes no difference. Secrets are compared but not shown.
    """
    before, after = dict(_leaves(old)), dict(_leaves(new))
    old_shown, new_shown = dict(_leaves(redacted(old))), dict(_leaves(redacted(new)))
    return [
        FieldChange(field, _change(before, after, field), old_shown.get(field), new_shown.get(field))
        for field in [*after, *(field for field in before if field not in after)]
        if before.get(field, _ABSENT) != after.get(field, _ABSENT)
    ]


def comparable_spec(revision: Revision | None) -> dict[str, Any]:
    """Return a revision's effective spec, with the port and the image id that were resolved for it."""
    if revision is None:
        return {}
    profile = {"profile": revision.profile} if revision.profile is not None else {}
    return {**revision.effective, "port": revision.port, "image_id": revision.image_id or None, **profile}


def _change(before: Mapping[str, Any], after: Mapping[str, Any], field: str) -> Literal["added", "removed", "changed"]:
    if field not in before:
        return "added"
    return "changed" if field in after else "removed"


def _leaves(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, part in value.items():
        if isinstance(part, Mapping):
            yield from _leaves(part, f"{prefix}{name}.")
        else:
            yield prefix + name, part
