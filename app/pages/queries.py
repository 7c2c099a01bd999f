"""Queries that several pages share."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from services.clock import rfc3339
from services.rollouts.state.status import TERMINAL
from services.store.readonly import select_readonly
from services.store.tables import Deployment

NEWEST = 15
"""Number of deployments and revisions on a page."""
_LARGEST_ID = 2**63 - 1
NEVER_DEPLOYED = "never deployed"
"""Status on pages of a service that is `stopped` because no deployment of it has succeeded."""
DEPLOYMENTS = select_readonly(
    Deployment, "id", "service", "kind", "status", "message", "note", "created_by_name", "created_at", "finished_at"
)
"""Query with only the columns that lists of deployments show, for `listed`."""


def number_of(id: str) -> int | None:
    """Return the number of a deployment or build in an address; None if the text is no valid number."""
    return int(id) if id.isascii() and id.isdecimal() and len(id) < 20 and int(id) <= _LARGEST_ID else None


def shown(service: dict[str, Any]) -> dict[str, Any]:
    """Return a service's document for pages, with `running`: its last deployment if that has not ended."""
    last = service["deployment"]
    never = service["revision"] is None and service["status"] == "stopped"
    return {
        **service,
        "status": NEVER_DEPLOYED if never else service["status"],
        "running": last if last is not None and last["status"] not in TERMINAL else None,
    }


def listed(rows: Iterable[Deployment]) -> list[dict[str, Any]]:
    """Return rows of DEPLOYMENTS as documents for fragments/deployments.html."""
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
