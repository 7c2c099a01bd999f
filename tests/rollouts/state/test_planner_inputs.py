"""Time since which an instance is ready, derived from its stored row and its probes."""

from __future__ import annotations

from typing import Any

from services.engine.port import ContainerView
from services.probes import ProbeSnapshot
from services.rollouts.state.planner_inputs import ready_since
from services.rollouts.state.service_snapshot import ServiceSnapshot
from services.store.tables import Instance, Revision, Service

NOW = 1000.0


def ready_at(**fields: Any) -> float | None:
    """Return `ready_since` of an instance that answers no probe."""
    revision = Revision(
        service="web", number=1, image="web:1", image_id="1", hash="1", deployment=1, created_at=0, healthcheck={"path": "/"}
    )
    row = Instance(
        id="web-r1-1", service="web", revision=1, deployment=1, slot=1, address="10.0.0.2", port=80, hash="1", created_at=0
    ).model_copy(update=fields)
    container = ContainerView("web-r1-1", "web", 1, 1, 1, "1", "c1", "running", "s1")
    return ready_since(
        ServiceSnapshot(Service(name="web", internal_port=20001, created_at=0), None, {1: revision}, [row]),
        row,
        container,
        ProbeSnapshot(),
        NOW,
    )


def test_recalled_instance_stays_ready() -> None:
    assert ready_at(status="ready", ready_at=10, admitted_at=11) == 10


def test_instance_restarted_since_it_served_must_become_ready_again() -> None:
    assert ready_at(status="ready", ready_at=20, admitted_at=11) is None


def test_instance_that_never_served_must_become_ready_again() -> None:
    assert ready_at(status="ready", ready_at=10, admitted_at=None) is None
