"""Continuity of routes and links: the last check before a deployment withdraws an old instance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from services.rollouts.planner.observed import ObservedInstance
from services.rollouts.planner.steps import Failed, MarkDraining, Plan
from services.rollouts.reconciler.publication import Publication
from services.rollouts.reconciler.service_transaction import ServiceTransaction
from services.rollouts.requests.port_needs import port_needs
from services.rollouts.requests.validation import current_layers
from services.rollouts.state.revision_spec import revision_spec
from services.rollouts.state.status import Status


def preserve_routes(
    tx: ServiceTransaction, plan: Plan, observed: Sequence[ObservedInstance], publication: Publication
) -> Plan:
    """Return the plan, unless its withdrawals would leave a route or link name without an instance.

    The routes and link names that the current and the desired revision share must lead to the desired one first. If the
    desired revision can serve none of them, the deployment fails. If the routers do not have them yet, its withdrawals wait;
    the deployment fails if the routers cannot be updated.
    """
    deployment, current, desired = tx.snapshot.deployment, tx.snapshot.current_revision, tx.snapshot.desired_revision
    if deployment is None or deployment.status != Status.PROGRESSING or current is None or desired is None:
        return plan
    living = {instance.id for instance in observed if not instance.dead}
    withdrawals = [step for step in plan.steps if isinstance(step, MarkDraining) and step.instance in living]
    if desired is current or current.port is None or not withdrawals:
        return plan
    if desired.port is None:
        layers = current_layers(desired)
        named = layers.effective() if layers is not None else {}
        needs = port_needs(tx.session, tx.snapshot.service.name, named, revision_spec(desired), current)
        reasons = ", ".join(need.clause for need in needs)
        failed = Failed("image_port_unknown", f"revision {desired.number} has no port, but {reasons}; set port")
        return replace(plan, steps=(), outcome=failed) if needs else plan
    if publication.is_confirmed:
        return plan
    return replace(plan, steps=tuple(step for step in plan.steps if step not in withdrawals))
