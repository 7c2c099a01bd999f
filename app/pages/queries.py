"""What several pages read alike."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from services.clock import rfc3339
from services.rollouts.state.status import TERMINAL
from services.store.readonly import select_readonly
from services.store.tables import Deployment

NEWEST = 15
"""How many deployments and revisions a page lists."""
_LARGEST_ID = 2**63 - 1
NEVER_DEPLOYED = "never deployed"
"""How pages call a service that stands `stopped` because no deployment of it ever succeeded."""
DEPLOYMENTS = select_readonly(
    Deployment, "id", "service", "kind", "status", "message", "note", "created_by_name", "created_at", "finished_at"
)
"""Of each only what lists show: `listed` needs no more."""


def number_of(id: str) -> int | None:
    """The number of a deployment or a build, as an address has it; None for what cannot be one."""
    return int(id) if id.isascii() and id.isdecimal() and len(id) < 20 and int(id) <= _LARGEST_ID else None


def shown(service: dict[str, Any]) -> dict[str, Any]:
    """A service's view as pages show it, with `running`: its last deployment while that has not ended."""
    last = service["deployment"]
    never = service["revision"] is None and service["status"] == "stopped"
    return {
        **service,
        "status": NEVER_DEPLOYED if never else service["status"],
        "running": last if last is not None and last["status"] not in TERMINAL else None,
    }


def listed(rows: Iterable[Deployment]) -> list[dict[str, Any]]:
    """Rows of DEPLOYMENTS as fragments/deployments.html shows them."""
    return [
        {
            "id": row.id,
            "service": row.service,
            "kind": row.kind,
            "status": row.status,
            "message": row.message,
            "note": row.note,
            "by": row.created_by_name,
            "created_at": rfc3339(row.created_at),
            "finished": row.finished_at is not None,
        }
        for row in rows
    ]
