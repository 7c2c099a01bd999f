"""The running deployment's progress and outcome, written in the transaction of a reconciliation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from services.rollouts.planner.observed import ObservedInstance
from services.rollouts.planner.steps import Failed, Outcome, Plan, Succeeded
from services.rollouts.reconciler.linking import failed_by_routers, unserved_links
from services.rollouts.reconciler.publication import Publication
from services.rollouts.reconciler.service_transaction import ServiceTransaction
from services.rollouts.state.revision_spec import revision_spec
from services.rollouts.state.routing_config import traffic_split
from services.rollouts.state.service_snapshot import ServiceSnapshot
from services.rollouts.state.status import Status
from services.store.tables import Deployment

DEFAULT_PROGRESS_DEADLINE = 300.0
"""Seconds, for a deployment without a revision."""


@dataclass(frozen=True)
class DeploymentWrites:
    """The result of the writes."""

    status_changed: bool = False
    awaited_links: frozenset[str] = frozenset()
    """Services that the deployment newly links to, and for which the routers do not answer by name yet."""


def write_deployment(
    tx: ServiceTransaction,
    plan: Plan,
    observed: Sequence[ObservedInstance],
    publication: Publication,
    capacity_error: str | None,
) -> DeploymentWrites:
    """Record the progress of the running deployment, and its outcome if there is one.

    Raises LeaseLost if a newer process holds the deployment.
    """
    deployment = tx.snapshot.deployment
    if deployment is None:
        return DeploymentWrites()
    tx.writer.lease(deployment)
    deadline = _progress_deadline(tx.snapshot, deployment)
    status = deployment.status
    traffic = traffic_split(tx.snapshot.instances, observed, tx.snapshot.current_revision)
    links = unserved_links(tx.snapshot, tx.observation.unserved_links)
    tx.writer.progress(tx.session, deployment, plan.progress, traffic, deadline, _blocker(observed, links))
    outcome = _outcome(tx, deployment, plan, publication, links) or _no_capacity(capacity_error)
    if isinstance(outcome, Succeeded):
        tx.writer.complete(tx.session, tx.snapshot.service, deployment)
    elif isinstance(outcome, Failed) and deployment.status != Status.PAUSED:
        _record_failed_instance(tx, outcome)
        tx.writer.fail(tx.session, deployment, outcome, deadline)
    return DeploymentWrites(deployment.status != status, frozenset(links))


def _progress_deadline(snapshot: ServiceSnapshot, deployment: Deployment) -> float:
    revision = snapshot.revisions.get(deployment.revision or 0) or snapshot.current_revision
    return revision_spec(revision).progress_deadline_seconds if revision is not None else DEFAULT_PROGRESS_DEADLINE


def _blocker(observed: Sequence[ObservedInstance], links: Mapping[str, str | None]) -> str:
    """Return the clause that says what the deployment waits for, or an empty one."""
    blocker = next((instance.drain_blocker for instance in observed if instance.drain_blocker), "")
    if links and not blocker:
        return f"the gateway does not serve {', '.join(links)} yet"
    return blocker


def _outcome(
    tx: ServiceTransaction,
    deployment: Deployment,
    plan: Plan,
    publication: Publication,
    links: Mapping[str, str | None],
) -> Outcome | None:
    """Return the plan's outcome, unless the routers contradict it.

    The deployment has not succeeded before the routers confirm the service and its links, and fails if they cannot.
    """
    outcome = plan.outcome
    if isinstance(outcome, Succeeded) and (links or not publication.is_confirmed):
        outcome = None
    if outcome is not None or deployment.status != Status.PROGRESSING:
        return outcome
    unconfirmed = not publication.is_confirmed and not publication.is_removal
    error = tx.observation.instance_error or (tx.observation.publication_error if unconfirmed else None)
    return failed_by_routers(error, links)


def _no_capacity(capacity_error: str | None) -> Failed | None:
    return Failed("no_capacity", capacity_error) if capacity_error is not None else None


def _record_failed_instance(tx: ServiceTransaction, failed: Failed) -> None:
    """Mark the instance that showed the failure as failed and draining, with its log tail."""
    row = next((row for row in tx.snapshot.instances if row.id == failed.instance), None)
    if row is None:
        return
    changes = {
        "leaving_at": row.leaving_at or tx.writer.clock.now(),
        "failure_reason": row.failure_reason or failed.reason,
        "failure": row.failure or failed.message,
        "failed_deployment": tx.deployment_id,
        "log_tail": row.log_tail or tx.observation.log_tails.get(row.id),
    }
    if row.status != "failed":  # if the engine refused to start the instance, that event is recorded already
        tx.writer.set_instance_status(tx.session, row, "failed", failed.message, tx.deployment_id, changes)
    for name, value in changes.items():
        setattr(row, name, value)
