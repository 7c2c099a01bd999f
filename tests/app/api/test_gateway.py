"""The endpoints of the gateway and the doctor, and the commands that call them."""

from __future__ import annotations

import pytest

from services.infrastructure.doctor_findings import warning, wrong
from services.infrastructure.gateway_upgrade import GatewayNotReady
from services.routing.port import RoutingError
from tests.support.app_fixture import AppFixture, eventually


def test_gateway_endpoint_shows_whether_the_gateway_answers_and_is_outdated(app_fixture: AppFixture) -> None:
    app_fixture.infrastructure.outdated = "different image"
    shown = app_fixture.client.get("/gateway").json()
    assert (shown["answers"], shown["version"], shown["outdated"]) == (True, "fake", "different image")
    assert app_fixture.client.get("/readyz").json()["gateway"]["outdated"] == "different image"
    app_fixture.gateway.answering = False
    assert app_fixture.client.get("/gateway").json()["answers"] is False


def test_gateway_upgrade_runs_when_outdated_or_forced_and_is_audited(app_fixture: AppFixture) -> None:
    assert app_fixture.client.post("/gateway/upgrade").json()["status"] == "unchanged"
    upgraded = app_fixture.client.post("/gateway/upgrade", json={"force": True}).json()
    assert upgraded == {"status": "upgraded", "container_id": "c" * 64, "previous_id": "b" * 64, "seconds": 0.5}
    noted = [entry for entry in app_fixture.client.get("/audit").json()["items"] if entry["type"] == "gateway_upgraded"]
    assert len(noted) == 1 and noted[0]["actor"] == {"kind": "token", "name": "admin"}


def test_idempotency_key_upgrades_the_gateway_once(app_fixture: AppFixture) -> None:
    key = {"Idempotency-Key": "once"}
    first = app_fixture.client.post("/gateway/upgrade", json={"force": True}, headers=key).json()
    assert app_fixture.client.post("/gateway/upgrade", json={"force": True}, headers=key).json() == first
    assert app_fixture.client.post("/gateway/upgrade", json={}, headers=key).json()["code"] == "idempotency_key_reused"
    noted = [entry for entry in app_fixture.client.get("/audit").json()["items"] if entry["type"] == "gateway_upgraded"]
    assert len(noted) == 1


@pytest.mark.parametrize("scope", ["read", "deploy", "write"])
def test_gateway_upgrade_requires_the_admin_scope(app_fixture: AppFixture, scope: str) -> None:
    headers = app_fixture.as_scope(scope)
    assert app_fixture.client.post("/gateway/upgrade", headers=headers).status_code == 403
    assert app_fixture.client.get("/gateway", headers=headers).status_code == 200
    assert app_fixture.client.get("/doctor", headers=headers).status_code == 200


def test_gateway_upgrade_that_fails_answers_with_its_reason(app_fixture: AppFixture) -> None:
    app_fixture.infrastructure.refuses = GatewayNotReady(
        "The new gateway exited at its start. Its last log lines:\nno such directive"
    )
    failed = app_fixture.client.post("/gateway/upgrade", json={"force": True})
    assert (failed.status_code, failed.json()["code"]) == (502, "gateway_upgrade_failed")
    assert "no such directive" in failed.json()["detail"]
    app_fixture.infrastructure.refuses = RoutingError("No gateway is running; starting it")
    assert app_fixture.client.post("/gateway/upgrade").json()["code"] == "not_ready"
    app_fixture.infrastructure.refuses = None
    app_fixture.infrastructure.upgrading = True
    assert app_fixture.client.post("/gateway/upgrade").json()["code"] == "upgrade_in_progress"


def test_gateway_upgrade_refuses_an_unknown_field(app_fixture: AppFixture) -> None:
    answer = app_fixture.client.post("/gateway/upgrade", json={"forced": True})
    assert answer.status_code == 422 and 'did you mean "force"' in answer.json()["errors"][0]["message"]


def test_doctor_is_unwell_when_a_finding_is_wrong(app_fixture: AppFixture) -> None:
    eventually(lambda: app_fixture.client.get("/readyz").status_code == 200, "ready")
    assert app_fixture.client.get("/doctor").json()["status"] == "well"
    app_fixture.infrastructure.findings = (warning("clock", "not synchronised", "timedatectl"),)
    assert app_fixture.client.get("/doctor").json()["status"] == "well", "a warning is no illness"
    app_fixture.infrastructure.findings = (wrong("firewall", "refuses", "ufw allow"),)
    reported = app_fixture.client.get("/doctor").json()
    assert reported["status"] == "unwell"
    assert reported["findings"] == [{"part": "firewall", "status": "wrong", "detail": "refuses", "advice": "ufw allow"}]
