"""A stored spec that is activated again is validated against the current state, like a new spec."""

from __future__ import annotations

from typing import Any

from tests.isolation.test_claims import bound, refused, send
from tests.support.app_fixture import AppFixture

MINE, NEXT = {"path_prefix": "/mine"}, {"path_prefix": "/next"}
NEVER: dict[str, Any] = {"test": ["CMD", "false"], "disable": None}


def test_rollback_cannot_take_route_that_another_service_has_now(app_fixture: AppFixture) -> None:
    token = bound(app_fixture, "thief", "other")
    for service, route in (("thief", MINE), ("thief", NEXT), ("other", MINE)):
        assert send(app_fixture, token, service, routes=[route]).status_code == 200
    for headers in (token, bound(app_fixture, "thief", scope="deploy"), {}):
        answer = app_fixture.client.post("/services/thief/rollback?wait=20", json={"to_revision": 1}, headers=headers)
        refused(answer, "routes.0", "other")
    assert app_fixture.client.post("/services/thief/rollback?dry_run=true", json={}, headers=token).status_code == 422


def test_pending_rollback_does_not_start_after_its_route_was_taken(app_fixture: AppFixture) -> None:
    for route in (MINE, NEXT):
        assert send(app_fixture, {}, routes=[route], on_conflict="queue").status_code == 200
    running = send(app_fixture, {}, healthcheck=NEVER, environment={"A": "1"}, query="")
    waiting = app_fixture.client.post("/services/thief/rollback", json={"to_revision": 1})
    assert waiting.status_code == 202, waiting.text
    assert send(app_fixture, {}, "other", routes=[MINE]).status_code == 200
    app_fixture.client.post(f"/deployments/{running.json()['id']}/abort", json={})
    ended = app_fixture.client.get(f"/deployments/{waiting.json()['id']}?wait=20").json()
    assert (ended["status"], ended["reason"]) == ("rolled_back", "invalid_spec"), ended


def test_pending_scale_and_restart_use_revision_current_at_their_start(app_fixture: AppFixture) -> None:
    assert send(app_fixture, {}, routes=[MINE], on_conflict="queue").status_code == 200
    running = send(app_fixture, {}, healthcheck=NEVER, environment={"A": "1"}, query="")
    coming = send(app_fixture, {}, routes=[NEXT], query="")
    scale = app_fixture.client.post("/services/thief/scale", json={"replicas": 2})
    restart = app_fixture.client.post("/services/thief/restart", json={})
    app_fixture.client.post(f"/deployments/{running.json()['id']}/abort", json={})
    for waited in (coming, scale, restart):
        ended = app_fixture.client.get(f"/deployments/{waited.json()['id']}?wait=20").json()
        assert ended["status"] == "succeeded", ended
    service = app_fixture.client.get("/services/thief").json()
    assert (service["spec"]["routes"], service["replicas"]) == ([NEXT], 2)


def test_pending_scale_does_not_give_volume_two_writers(app_fixture: AppFixture) -> None:
    assert send(app_fixture, {}, on_conflict="queue").status_code == 200
    running = send(app_fixture, {}, healthcheck=NEVER, environment={"A": "1"}, query="")
    send(app_fixture, {}, volumes=["data:/data"], query="")
    scale = app_fixture.client.post("/services/thief/scale", json={"replicas": 2})
    app_fixture.client.post(f"/deployments/{running.json()['id']}/abort", json={})
    ended = app_fixture.client.get(f"/deployments/{scale.json()['id']}?wait=20").json()
    assert (ended["status"], ended["reason"]) == ("rolled_back", "invalid_spec"), ended


def test_rollback_does_not_give_volume_two_writers(app_fixture: AppFixture) -> None:
    assert send(app_fixture, {}, volumes=["data:/data"]).status_code == 200
    assert send(app_fixture, {}, volumes=None, replicas=2).status_code == 200
    refused(app_fixture.client.post("/services/thief/rollback", json={}), "replicas", "shared")
