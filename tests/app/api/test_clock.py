"""The host's clock is set an hour forward or back during a deployment: nothing hangs and nothing fails."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest

from tests.support.app_fixture import AppFixture, eventually
from tests.support.fakes.engine import Behaviour

pytestmark = pytest.mark.slow

HOUR = 3600.0
SETTINGS: dict[str, Any] = {"progress_deadline_seconds": 60, "drain_timeout": 5}


@pytest.fixture
def set_clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Shift the wall clock of this process by a number of seconds; the monotonic clock is unchanged."""
    true = time.time

    def set_to(offset: float) -> None:
        monkeypatch.setattr(time, "time", lambda: true() + offset)

    return set_to


@pytest.mark.parametrize("jump", [HOUR, -HOUR], ids=["forward", "back"])
def test_deployment_succeeds_when_the_clock_jumps(
    app_fixture: AppFixture, set_clock: Callable[[float], None], jump: float
) -> None:
    began = time.time()
    app_fixture.image("web:1", "web:2")
    assert app_fixture.deploy(replicas=2, **SETTINGS).json()["status"] == "succeeded"
    app_fixture.engine.behave("web:2", Behaviour(start_takes=0.4))
    made = app_fixture.deploy(image="web:2", wait="").json()
    eventually(lambda: ("start", "web-r2-1") in app_fixture.engine.calls, "its first instance is being started")
    set_clock(jump)
    answer = app_fixture.client.get(f"/deployments/{made['id']}", params={"wait": "20"})
    assert answer.status_code == 200, answer.text
    assert answer.json()["status"] == "succeeded"
    # a later deployment succeeds too
    assert app_fixture.deploy(image="web:1").json()["status"] == "succeeded"
    set_clock(0)
    events = sorted(
        app_fixture.client.get("/events", params={"limit": "200"}).json()["items"], key=lambda event: int(event["id"])
    )
    times = [datetime.fromisoformat(event["at"]).timestamp() for event in events]
    assert times == sorted(times)
    assert began - 1 <= times[0] and times[-1] <= time.time() + 1


@pytest.mark.parametrize("jump", [HOUR, -HOUR], ids=["forward", "back"])
def test_deadline_keeps_its_length_when_the_clock_jumps(
    app_fixture: AppFixture, set_clock: Callable[[float], None], jump: float
) -> None:
    """An instance that never becomes ready fails at its deadline: neither at once nor an hour late."""
    app_fixture.image("web:1", "web:2")
    assert app_fixture.deploy(**SETTINGS).json()["status"] == "succeeded"
    never = {"test": ["CMD", "false"], "disable": None, "start_period": 2}
    made = app_fixture.deploy(image="web:2", wait="", healthcheck=never).json()
    eventually(lambda: ("start", "web-r2-1") in app_fixture.engine.calls, "its first instance is being started")
    began = time.monotonic()
    set_clock(jump)
    ended = app_fixture.client.get(f"/deployments/{made['id']}", params={"wait": "25"}).json()
    assert ended["status"] == "rolled_back", ended
    assert time.monotonic() - began > 1
    assert app_fixture.client.get("/services/web").json()["status"] == "serving"
