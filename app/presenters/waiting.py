"""The instance for which a deployment in progress waits, and the reason, as a clause for people."""

from __future__ import annotations

from collections.abc import Sequence

from services.rollouts.state.runtime_status import RuntimeStatus
from services.store.tables import Deployment, Instance


def waiting_for(row: Deployment, instances: Sequence[Instance], runtime_status: RuntimeStatus, now: float) -> str:
    """Return the clause; empty if the deployment waits for no instance that is known.

    An instance whose start is missing comes before one that stops, the last one to be killed first, and one that drains.
    """
    clauses = (
        _starting(row, instances, runtime_status),
        _stopping(instances, runtime_status, now),
        _draining(instances, runtime_status),
    )
    return next((clause for clause in clauses if clause), "")


def _starting(row: Deployment, instances: Sequence[Instance], runtime_status: RuntimeStatus) -> str:
    if row.progress.get("serving", 0) >= row.progress.get("desired", 0):
        return ""
    for instance in instances:
        probe = runtime_status.probe(instance.id)
        if instance.status == "starting" and probe is not None and probe.get("error"):
            return f"waiting for {instance.id} to be healthy: {probe['error']}"
    return ""


def _stopping(instances: Sequence[Instance], runtime_status: RuntimeStatus, now: float) -> str:
    stops = [(instance.id, stop) for instance in instances if (stop := runtime_status.stop(instance.id)) is not None]
    if not stops:
        return ""
    id, last = max(stops, key=lambda each: each[1].began_at + each[1].grace)
    others = f" and {len(stops) - 1} more" if len(stops) > 1 else ""
    elapsed = max(now - last.began_at, 0)
    return f"waiting for {id}{others} to stop: {last.signal} {elapsed:.0f} s ago, killed at {last.grace:g} s"


def _draining(instances: Sequence[Instance], runtime_status: RuntimeStatus) -> str:
    counts = {instance.id: runtime_status.in_flight(instance.id) for instance in instances if instance.status == "draining"}
    id = max(counts, key=lambda each: counts[each], default="")
    if not id or not counts[id]:
        return ""
    requests = "1 request" if counts[id] == 1 else f"{counts[id]} requests"
    return f"waiting for {id} to drain: {requests} in flight"
