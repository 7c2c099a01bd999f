"""An old instance is withdrawn only when the routers have the routes of the revision that follows it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from sqlmodel import Session

from services.clock import SystemClock
from services.rollouts.planner.steps import Create, MarkDraining, Plan, Progress
from services.rollouts.reconciler.observation import Observation
from services.rollouts.reconciler.publication import Publication
from services.rollouts.reconciler.route_continuity import preserve_routes
from services.rollouts.reconciler.service_transaction import ServiceTransaction
from services.rollouts.state.routing_config import routed_service
from services.rollouts.state.service_snapshot import ServiceSnapshot
from services.rollouts.state.transitions import StateWriter
from services.store.tables import Deployment, Revision, Service
from tests.support.builders import dead, serving

WITHDRAWAL = MarkDraining("old-1")


def revision(number: int, path: str) -> Revision:
    return Revision(
        service="web", number=number, image="web:1", image_id="sha256:1", port=8000, hash=str(number), deployment=number,
        effective={"image": "web:1", "routes": [{"path_prefix": path}]}, healthcheck={"disable": True}, created_at=0,
    )  # fmt: skip


SERVICE = Service(name="web", revision=1, internal_port=20001, created_at=0)
OLD, NEW = revision(1, "/"), revision(2, "/new")
DEPLOYMENT = Deployment(id=2, service="web", kind="deploy", status="progressing", revision=2, replicas=1, created_at=0)


def preserved(plan: Plan, publication: Publication, *, kind: str = "serving") -> Plan:
    snapshot = ServiceSnapshot(SERVICE, DEPLOYMENT, {1: OLD, 2: NEW}, [])
    observation = Observation([], [], publication.published, "10.203.0.0/24")
    tx = ServiceTransaction(Session(), StateWriter(SystemClock(), 1), snapshot, observation)
    return preserve_routes(tx, plan, [serving("old-1") if kind == "serving" else dead("old-1")], publication)


@pytest.fixture
def plan() -> Plan:
    return Plan((Create(1), WITHDRAWAL), Progress(1, 1, 1, 1, 0, 0), None, None)


def test_withdrawal_waits_until_the_routers_have_the_new_routes(plan: Plan) -> None:
    wanted, published = routed_service(SERVICE, NEW, linked=False), routed_service(SERVICE, OLD, linked=False)
    assert preserved(plan, Publication(wanted, published, None)) == replace(plan, steps=(Create(1),))
    assert preserved(plan, Publication(wanted, wanted, None)) == plan


def test_dead_instance_is_removed_whatever_the_routers_have(plan: Plan) -> None:
    wanted = routed_service(SERVICE, NEW, linked=False)
    assert preserved(plan, Publication(wanted, None, None), kind="dead") == plan
