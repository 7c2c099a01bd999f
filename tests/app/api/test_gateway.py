"""The gateway's and the doctor's endpoints, and the commands that ask them."""

from __future__ import annotations

import pytest

from services.infrastructure.doctor_findings import warning, wrong
from services.infrastructure.gateway_upgrade import GatewayUnanswering
from services.routing.port import RoutingError
from tests.support.app_fixture import House, eventually


def test_the_gateway_shows_how_it_fares(house: House) -> None:
    house.ground.outdated = "another image"
    shown = house.client.get("/gateway").json()
    assert (shown["answers"], shown["version"], shown["outdated"]) == (True, "fake", "another image")
    assert house.client.get("/readyz").json()["gateway"]["outdated"] == "another image"
    house.gateway.answering = False
    assert house.client.get("/gateway").json()["answers"] is False


def test_an_upgrade_is_done_when_it_is_due_or_asked_for_and_noted(house: House) -> None:
    assert house.client.post("/gateway/upgrade").json()["status"] == "unchanged"
    upgraded = house.client.post("/gateway/upgrade", json={"force": True}).json()
    assert upgraded == {"status": "upgraded", "container_id": "c" * 64, "previous_id": "b" * 64, "seconds": 0.5}
    noted = [entry for entry in house.client.get("/audit").json()["items"] if entry["type"] == "gateway_upgraded"]
    assert len(noted) == 1 and noted[0]["actor"] == {"kind": "token", "name": "admin"}


def test_the_same_key_upgrades_once(house: House) -> None:
    key = {"Idempotency-Key": "once"}
    first = house.client.post("/gateway/upgrade", json={"force": True}, headers=key).json()
    assert house.client.post("/gateway/upgrade", json={"force": True}, headers=key).json() == first
    assert house.client.post("/gateway/upgrade", json={}, headers=key).json()["code"] == "idempotency_key_reused"
    noted = [entry for entry in house.client.get("/audit").json()["items"] if entry["type"] == "gateway_upgraded"]
    assert len(noted) == 1


@pytest.mark.parametrize("scope", ["read", "deploy", "write"])
def test_only_an_admin_upgrades(house: House, scope: str) -> None:
    headers = house.as_scope(scope)
    assert house.client.post("/gateway/upgrade", headers=headers).status_code == 403
    assert house.client.get("/gateway", headers=headers).status_code == 200
    assert house.client.get("/doctor", headers=headers).status_code == 200


def test_why_an_upgrade_did_not_happen(house: House) -> None:
    house.ground.refuses = GatewayUnanswering("The new gateway ended at its start. Its last words:\nno such directive")
    failed = house.client.post("/gateway/upgrade", json={"force": True})
    assert (failed.status_code, failed.json()["code"]) == (502, "gateway_upgrade_failed")
    assert "no such directive" in failed.json()["detail"]
    house.ground.refuses = RoutingError("There is no gateway that runs; it is being started")
    assert house.client.post("/gateway/upgrade").json()["code"] == "not_ready"
    house.ground.refuses = None
    house.ground.upgrading = True
    assert house.client.post("/gateway/upgrade").json()["code"] == "upgrade_in_progress"


def test_a_misspelt_wish_is_refused(house: House) -> None:
    answer = house.client.post("/gateway/upgrade", json={"forced": True})
    assert answer.status_code == 422 and 'did you mean "force"' in answer.json()["errors"][0]["message"]


def test_the_doctor_says_whether_all_is_well(house: House) -> None:
    eventually(lambda: house.client.get("/readyz").status_code == 200, "ready")
    assert house.client.get("/doctor").json()["status"] == "well"
    house.ground.findings = (warning("clock", "nothing keeps it right", "timedatectl"),)
    assert house.client.get("/doctor").json()["status"] == "well", "a warning is no illness"
    house.ground.findings = (wrong("firewall", "refuses", "ufw allow"),)
    told = house.client.get("/doctor").json()
    assert told["status"] == "unwell"
    assert told["findings"] == [{"part": "firewall", "status": "wrong", "detail": "refuses", "advice": "ufw allow"}]
