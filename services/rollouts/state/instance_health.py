"""The health of instances as routers and engine judge it: since when and why one is unhealthy."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from services.engine.port import ContainerView
from services.masking import log_mask
from services.rollouts.state.service_snapshot import ServiceSnapshot
from services.routing.port import EndpointState
from services.store.tables import Instance, Revision

MAX_REASON = 300
"""Maximum length of a reason in characters, because the reason may quote the output of the instance's own test."""


HEALTHY: Mapping[str, Any] = MappingProxyType({"unhealthy_since": None, "unhealthy_reason": None})
"""Columns of an instance that is healthy, or not judged."""


@dataclass(frozen=True)
class Unhealthy:
    """Since when (seconds since the epoch) and why an instance is unhealthy."""

    since: float
    reason: str


def unhealthy_instances(
    snapshot: ServiceSnapshot,
    containers: Iterable[ContainerView],
    endpoint_states: Sequence[Mapping[str, EndpointState]],
    now: float,
) -> dict[str, Unhealthy]:
    """Return the instances that should serve and are unhealthy.

    These are admitted instances that fail a router's own checks, and instances that were admitted and fail the engine's
    check or are paused. An instance that is leaving is not judged again: if it was unhealthy, it is never recalled.
    """
    by_instance = {container.instance: container for container in containers}
    found: dict[str, Unhealthy] = {}
    for row in snapshot.instances:
        if row.leaving_at is not None:
            if row.unhealthy_since is not None:
                found[row.id] = Unhealthy(row.unhealthy_since, row.unhealthy_reason or "")
            continue
        states = [states[row.id] for states in endpoint_states if row.port is not None and row.id in states]
        reason = _reason(by_instance.get(row.id), states, snapshot.revision_of(row))
        if reason is not None:
            found[row.id] = Unhealthy(row.unhealthy_since or now, reason)
    return found


def failed_check(state: EndpointState) -> str:
    """Return a clause for people about the failed check of an endpoint."""
    if state.check_status is not None:
        return f"check answered {state.check_status}"
    return f"check failed: {state.check}" if state.check else "check failed"


def lost_address(row: Instance, container: ContainerView) -> str:
    """Return how a running container lost its row's address, as a clause; empty if it has the address."""
    if container.state != "running" or container.restarting or container.address == row.address:
        return ""
    if container.address is None:
        return f"lost its address {row.address}: its container was disconnected from Sluice's network"
    return f"lost its address {row.address}: its container has {container.address} in Sluice's network instead"


def last_check(container: ContainerView, revision: Revision) -> dict[str, Any] | None:
    """Return the engine's last check of a container in the form of a probe, or None."""
    if container.last_test is None:
        return None
    error = _failed_test(container, revision) if container.last_test.exit_code else None
    return {"ok": error is None, "status": None, "error": error, "at": container.last_test.at}


def warnings(rows: Iterable[Instance]) -> list[dict[str, str]]:
    """Return the standing warnings about unhealthy instances."""
    return [
        {"code": "unhealthy", "message": f"{row.id} is unhealthy: {row.unhealthy_reason}"}
        for row in rows
        if row.status == "unhealthy"
    ]


def _reason(container: ContainerView | None, states: Iterable[EndpointState], revision: Revision) -> str | None:
    running = container is not None and container.state == "running"
    if container is not None and running and container.auto_restart and container.paused:
        return "its container is paused"
    failed = next((state for state in states if state.state == "admitted" and not state.healthy), None)
    if failed is not None:
        return failed_check(failed)
    if container is not None and running and container.auto_restart and container.health == "unhealthy":
        return _failed_test(container, revision)
    return None


def _failed_test(container: ContainerView, revision: Revision) -> str:
    """Return a clause about the failed run of a container's test, with the secrets of the spec masked."""
    test = container.last_test
    if test is None:
        return "test failed"
    how = f"test exited with code {test.exit_code}" if test.exit_code >= 0 else "test failed"
    output = log_mask(revision.effective).text(test.output)
    return f"{how}: {' '.join(output.split())}"[:MAX_REASON] if output else how
