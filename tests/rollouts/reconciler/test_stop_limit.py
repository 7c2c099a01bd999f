"""An instance is killed after its grace period, with advice only if `init` is not set."""

from __future__ import annotations

from typing import Any

import pytest

from services.rollouts.reconciler.stop_limit import StopLimit, stop_limit
from services.store.tables import Instance, Revision


def limit(*, port: int | None = 80, admitted_at: float | None = 10, **spec: Any) -> StopLimit:
    revision = Revision(
        service="web", number=1, image="web:1", image_id="1", hash="1", deployment=1, created_at=0,
        effective={"image": "web:1", **spec},
    )  # fmt: skip
    row = Instance(
        id="web-r1-1", service="web", revision=1, deployment=1, slot=1, address="10.0.0.2", port=port, hash="1",
        created_at=0, admitted_at=admitted_at,
    )  # fmt: skip
    return stop_limit(row, revision)


def test_killed_instance_gets_advice_unless_it_has_an_init() -> None:
    assert limit().advice == "; process 1 ignores SIGTERM unless it handles it: handle it, or set init: true"
    assert "ignores SIGQUIT" in limit(stop_signal="SIGQUIT").advice
    assert limit(init=True) == StopLimit("SIGTERM", 30, "stop_grace_period", "")


@pytest.mark.parametrize(("port", "grace"), [(80, 10), (None, 120)])
def test_instance_that_never_served_has_a_shorter_grace_unless_it_is_a_worker(port: int | None, grace: float) -> None:
    assert limit(port=port, admitted_at=None, stop_grace_period=120).grace == grace
