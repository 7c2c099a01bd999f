"""A stored spec that comes into force again: what the world became meanwhile counts, as for a new one."""

from __future__ import annotations

from typing import Any

from tests.isolation.test_claims import bound, refused, send
from tests.support.app_fixture import House

MINE, NEXT = {"path_prefix": "/mine"}, {"path_prefix": "/next"}
NEVER: dict[str, Any] = {"test": ["CMD", "false"], "disable": None}


def test_a_rollback_cannot_take_a_route_that_another_service_has_now(house: House) -> None:
    token = bound(house, "thief", "other")
    for service, route in (("thief", MINE), ("thief", NEXT), ("other", MINE)):
        assert send(house, token, service, routes=[route]).status_code == 200
    for headers in (token, bound(house, "thief", scope="deploy"), {}):
        answer = house.client.post("/services/thief/rollback?wait=20", json={"to_revision": 1}, headers=headers)
        refused(answer, "routes.0", "other")
    assert house.client.post("/services/thief/rollback?dry_run=true", json={}, headers=token).status_code == 422


def test_a_waiting_rollback_does_not_begin_when_its_route_was_taken(house: House) -> None:
    for route in (MINE, NEXT):
        assert send(house, {}, routes=[route], on_conflict="queue").status_code == 200
    running = send(house, {}, healthcheck=NEVER, environment={"A": "1"}, query="")
    waiting = house.client.post("/services/thief/rollback", json={"to_revision": 1})
    assert waiting.status_code == 202, waiting.text
    assert send(house, {}, "other", routes=[MINE]).status_code == 200
    house.client.post(f"/deployments/{running.json()['id']}/abort", json={})
    ended = house.client.get(f"/deployments/{waiting.json()['id']}?wait=20").json()
    assert (ended["status"], ended["reason"]) == ("rolled_back", "invalid_spec"), ended


def test_a_scale_or_restart_that_waits_is_of_the_revision_that_is_present_when_it_begins(house: House) -> None:
    assert send(house, {}, routes=[MINE], on_conflict="queue").status_code == 200
    running = send(house, {}, healthcheck=NEVER, environment={"A": "1"}, query="")
    coming = send(house, {}, routes=[NEXT], query="")
    scale = house.client.post("/services/thief/scale", json={"replicas": 2})
    restart = house.client.post("/services/thief/restart", json={})
    house.client.post(f"/deployments/{running.json()['id']}/abort", json={})
    for waited in (coming, scale, restart):
        ended = house.client.get(f"/deployments/{waited.json()['id']}?wait=20").json()
        assert ended["status"] == "succeeded", ended
    service = house.client.get("/services/thief").json()
    assert (service["spec"]["routes"], service["replicas"]) == ([NEXT], 2)


def test_a_scale_that_waits_does_not_give_a_volume_two_writers(house: House) -> None:
    assert send(house, {}, on_conflict="queue").status_code == 200
    running = send(house, {}, healthcheck=NEVER, environment={"A": "1"}, query="")
    send(house, {}, volumes=["data:/data"], query="")
    scale = house.client.post("/services/thief/scale", json={"replicas": 2})
    house.client.post(f"/deployments/{running.json()['id']}/abort", json={})
    ended = house.client.get(f"/deployments/{scale.json()['id']}?wait=20").json()
    assert (ended["status"], ended["reason"]) == ("rolled_back", "invalid_spec"), ended


def test_a_rollback_does_not_give_a_volume_two_writers(house: House) -> None:
    assert send(house, {}, volumes=["data:/data"]).status_code == 200
    assert send(house, {}, volumes=None, replicas=2).status_code == 200
    refused(house.client.post("/services/thief/rollback", json={}), "replicas", "shared")
