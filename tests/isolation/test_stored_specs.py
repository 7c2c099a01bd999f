"""A stored spec that is activated again is validated against the current state, like a new spec."""

from __future__ import annotations

from typing import Any

from tests.isolation.test_claims import bound, refused, send
from tests.support.app_fixture import AppFixture

MINE, NEXT = {"path_prefix": "/mine"}, {"path_prefix": "/next"}
NEVER: dict[str, Any] = {"test": ["CMD", "false"], "disable": None}


def test_rollback_cannot_take_route_that_another_service_has_now(fixture: AppFixture) -> None:
    token = bound(fixture, "thief", "other")
    for service, route in (("thief", MINE), ("thief", NEXT), ("other", MINE)):
        assert send(fixture, token, service, routes=[route]).status_code == 200
    for headers in (token, bound(fixture, "thief", scope="deploy"), {}):
        answer = fixture.client.post("/services/thief/rollback?wait=20", json={"to_revision": 1}, headers=headers)
        refused(answer, "routes.0", "other")
    assert fixture.client.post("/services/thief/rollback?dry_run=true", json={}, headers=token).status_code == 422


def test_pending_rollback_does_not_start_after_its_route_was_taken(fixture: AppFixture) -> None:
    for route in (MINE, NEXT):
        assert send(fixture, {}, routes=[route], on_conflict="queue").status_code == 200
    running = send(fixture, {}, healthcheck=NEVER, environment={"A": "1"}, query="")
    waiting = fixture.client.post("/services/thief/rollback", json={"to_revision": 1})
    assert waiting.status_code == 202, waiting.text
    assert send(fixture, {}, "other", routes=[MINE]).status_code == 200
    fixture.client.post(f"/deployments/{running.json()['id']}/abort", json={})
    ended = fixture.client.get(f"/deployments/{waiting.json()['id']}?wait=20").json()
    assert (ended["status"], ended["reason"]) == ("rolled_back", "invalid_spec"), ended


def test_pending_scale_and_restart_use_revision_current_at_their_start(fixture: AppFixture) -> None:
    assert send(fixture, {}, routes=[MINE], on_conflict="queue").status_code == 200
    running = send(fixture, {}, healthcheck=NEVER, environment={"A": "1"}, query="")
    coming = send(fixture, {}, routes=[NEXT], query="")
    scale = fixture.client.post("/services/thief/scale", json={"replicas": 2})
    restart = fixture.client.post("/services/thief/restart", json={})
    fixture.client.post(f"/deployments/{running.json()['id']}/abort", json={})
    for waited in (coming, scale, restart):
        ended = fixture.client.get(f"/deployments/{waited.json()['id']}?wait=20").json()
        assert ended["status"] == "succeeded", ended
    service = fixture.client.get("/services/thief").json()
    assert (service["spec"]["routes"], service["replicas"]) == ([NEXT], 2)


def test_pending_scale_does_not_give_volume_two_writers(fixture: AppFixture) -> None:
    assert send(fixture, {}, on_conflict="queue").status_code == 200
    running = send(fixture, {}, healthcheck=NEVER, environment={"A": "1"}, query="")
    send(fixture, {}, volumes=["data:/data"], query="")
    scale = fixture.client.post("/services/thief/scale", json={"replicas": 2})
    fixture.client.post(f"/deployments/{running.json()['id']}/abort", json={})
    ended = fixture.client.get(f"/deployments/{scale.json()['id']}?wait=20").json()
    assert (ended["status"], ended["reason"]) == ("rolled_back", "invalid_spec"), ended


def test_rollback_does_not_give_volume_two_writers(fixture: AppFixture) -> None:
    assert send(fixture, {}, volumes=["data:/data"]).status_code == 200
    assert send(fixture, {}, volumes=None, replicas=2).status_code == 200
    refused(fixture.client.post("/services/thief/rollback", json={}), "replicas", "shared")
