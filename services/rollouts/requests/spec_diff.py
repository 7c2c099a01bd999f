"""What differs between two specs, field by field, as people are shown it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from services.redaction import redacted
from services.store.tables import Revision

_ABSENT = object()


@dataclass(frozen=True)
class FieldChange:
    """`field` is dotted (`environment.LOG_LEVEL`); `old` is None where it was added, `new` where it was removed."""

    field: str
    change: Literal["added", "removed", "changed"]
    old: Any
    new: Any


def diff_specs(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[FieldChange]:
    """Objects are walked (an empty one says nothing), everything else is one value. Secrets are compared, and not shown."""
    before, after = dict(_leaves(old)), dict(_leaves(new))
    old_shown, new_shown = dict(_leaves(redacted(old))), dict(_leaves(redacted(new)))
    return [
        FieldChange(field, _change(before, after, field), old_shown.get(field), new_shown.get(field))
        for field in [*after, *(field for field in before if field not in after)]
        if before.get(field, _ABSENT) != after.get(field, _ABSENT)
    ]


def comparable_spec(revision: Revision | None) -> dict[str, Any]:
    """What a revision says in all: its effective spec, with the port and the image that it was found to have."""
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
