"""Since when an instance counts as proved, by what the store knows of it and what it answered."""

from __future__ import annotations

from typing import Any

import pytest

from services.clock import SystemClock
from services.engine.port import ContainerView
from services.probes import Prober
from services.rollouts.state.planner_inputs import ready_since
from services.rollouts.state.repository import ServiceSnapshot
from services.store.tables import Instance, Revision, Service

NOW = 1000.0
pytestmark = pytest.mark.anyio


async def ready_at(**fields: Any) -> float | None:
    """Of one that answers nobody's questions."""
    revision = Revision(
        service="web", number=1, image="web:1", image_id="1", hash="1", deployment=1, created_at=0, healthcheck={"path": "/"}
    )
    row = Instance(
        id="web-r1-1", service="web", revision=1, deployment=1, slot=1, address="10.0.0.2", port=80, hash="1", created_at=0
    ).model_copy(update=fields)
    prober = Prober(SystemClock(), lambda _: None)
    container = ContainerView("web-r1-1", "web", 1, 1, 1, "1", "c1", "running", "s1")
    seen = ready_since(
        ServiceSnapshot(Service(name="web", internal_port=20001, created_at=0), None, {1: revision}, [row]),
        row,
        container,
        prober,
        NOW,
    )
    await prober.stop()
    return seen


async def test_what_is_taken_back_need_not_prove_itself_again() -> None:
    assert await ready_at(status="ready", ready_at=10, admitted_at=11) == 10


async def test_what_was_started_again_since_it_served_must() -> None:
    assert await ready_at(status="ready", ready_at=20, admitted_at=11) is None


async def test_what_never_served_must() -> None:
    assert await ready_at(status="ready", ready_at=10, admitted_at=None) is None
