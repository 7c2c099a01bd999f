"""API documents of builds."""

from __future__ import annotations

from typing import Any

from services.clock import rfc3339
from services.store.readonly import select_readonly
from services.store.tables import Build

BUILDS = select_readonly(Build, without=("log",))
"""Query for lists of builds, without their logs."""


def present_build(row: Build) -> dict[str, Any]:
    """Return the build's document (docs/api.md); the log has its own path."""
    times = {name: getattr(row, name) for name in ("created_at", "started_at", "finished_at")}
    return {
        "id": row.id,
        "service": row.service,
        "status": row.status,
        "reason": row.reason,
        "message": row.message,
        "image": row.image,
        "image_id": row.image_id,
        "dockerfile": row.dockerfile,
        "target": row.target,
        "created_by": {"kind": row.created_by_kind, "name": row.created_by_name},
        **{name: rfc3339(at) if at is not None else None for name, at in times.items()},
        "links": {"self": f"/builds/{row.id}", "log": f"/builds/{row.id}/log", "page": f"/ui/builds/{row.id}"},
    }
