"""A log driver cannot reach the gateway: neither from a request, nor from a spec stored before the rule existed."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlmodel import Session

from services.engine.port import LogConfig
from services.rollouts.requests.admission import AdmissionRules, refused_services
from services.store.tables import Revision
from tests.support.app_fixture import AppFixture, build, eventually, living

PROFILES = {"central": {"driver": "syslog", "options": {"syslog-address": "udp://logs.example:514", "tag": "secret-tag"}}}


@pytest.fixture
def fixture(tmp_path: Path) -> Iterator[AppFixture]:
    with living(build(tmp_path / "data", log_drivers=PROFILES)) as made:
        yield made


def admin_socket(fixture: AppFixture) -> dict[str, Any]:
    return {"driver": "syslog", "options": {"syslog-address": f"unix://{fixture.data}/gateway/admin.sock"}}


def store_logging(fixture: AppFixture, number: int, logging: dict[str, Any]) -> None:
    """Store a log driver in the revision, as if the revision was made before the rule."""

    def change(session: Session) -> None:
        row = session.get_one(Revision, ("web", number))
        row.spec, row.effective = {**row.spec, "logging": logging}, {**row.effective, "logging": logging}

    fixture.call(fixture.sluice.store.write, change)


def started(fixture: AppFixture) -> int:
    return sum(method == "start" for method, _ in fixture.engine.calls)


def test_log_driver_that_writes_to_the_gateways_socket_is_refused(fixture: AppFixture) -> None:
    bodies: list[dict[str, Any]] = [
        {"logging": admin_socket(fixture)},
        {"logging": {"driver": "gelf", "options": {"gelf-address": "tcp://127.0.0.1:7080"}}},
        {"profile": "prod", "profiles": {"prod": {"logging": admin_socket(fixture)}}},
    ]
    for body in bodies:
        answer = fixture.deploy(**body)
        assert answer.status_code == 422, answer.text
        assert [error["field"] for error in answer.json()["errors"]] == ["logging.driver"]
        assert (
            fixture.client.post("/deployments?dry_run=true", json={"service": "web", "image": "web:1", **body}).status_code
            == 422
        )
    driver = f"logging: {{driver: syslog, options: {{syslog-address: 'unix://{fixture.data}/gateway/admin.sock'}}}}"
    reported = fixture.client.post(
        "/apply?project=shop",
        content=f"services:\n  web:\n    image: web:1\n    {driver}\n",
        headers={"Content-Type": "application/yaml"},
    )
    assert reported.status_code == 422 and "logging" in reported.json()["errors"][0]["field"], reported.text
    assert started(fixture) == 0


def test_stored_log_driver_that_is_no_longer_allowed_is_not_started_again(fixture: AppFixture) -> None:
    assert fixture.deploy().status_code == 200
    assert fixture.deploy(environment={"A": "1"}).status_code == 200
    store_logging(fixture, 1, admin_socket(fixture))
    before = started(fixture)
    rollback = fixture.client.post("/services/web/rollback", json={"to_revision": 1})
    assert (rollback.status_code, rollback.json()["errors"][0]["field"]) == (422, "logging.driver")
    store_logging(fixture, 2, admin_socket(fixture))
    assert fixture.client.post("/services/web/restart").json()["errors"][0]["field"] == "logging.driver"
    assert fixture.client.post("/services/web/scale", json={"replicas": 2}).status_code == 422
    assert started(fixture) == before
    assert fixture.client.get("/services/web/revisions/2").json()["effective"]["logging"]["driver"] == "syslog"


def test_retry_with_a_stored_log_driver_that_is_no_longer_allowed_is_refused(fixture: AppFixture) -> None:
    fixture.image("web:1")
    assert fixture.deploy().status_code == 200
    fixture.engine.registry.clear()
    fixture.engine.images.clear()
    failed = fixture.client.post("/deployments?wait=20", json={"service": "web", "image": "web:gone"}).json()["deployment"]
    store_logging(fixture, 1, admin_socket(fixture))
    answer = fixture.client.post(f"/deployments/{failed['id']}/retry")
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "logging.driver")


def test_instance_with_a_log_driver_that_is_no_longer_allowed_is_not_replaced(fixture: AppFixture) -> None:
    assert fixture.deploy().status_code == 200
    store_logging(fixture, 1, admin_socket(fixture))
    before = started(fixture)
    fixture.engine.vanish("web-r1-1")

    def failure() -> str:
        rows = fixture.client.get("/instances?service=web&status=failed").json()["items"]
        events = fixture.client.get("/events?service=web").json()["items"] if rows else []
        return next((event["message"] for event in events if "cannot be started" in event["message"]), "")

    assert "logging.driver" in eventually(failure, "the replacement is refused")
    assert started(fixture) == before


def test_refused_services_names_a_service_whose_spec_is_no_longer_allowed(fixture: AppFixture) -> None:
    rules = AdmissionRules(log_drivers={"central": LogConfig("syslog")})
    assert fixture.deploy().status_code == 200
    assert fixture.call(fixture.sluice.store.read, partial(refused_services, rules)) == {}
    store_logging(fixture, 1, admin_socket(fixture))
    refused = fixture.call(fixture.sluice.store.read, partial(refused_services, rules))
    assert list(refused) == ["web"] and refused["web"].startswith("logging.driver: ")


def test_log_profile_options_reach_the_container_and_no_answer(fixture: AppFixture) -> None:
    answer = fixture.deploy(logging={"driver": "central"})
    assert answer.status_code == 200, answer.text
    made = fixture.engine.containers["web-r1-1"].spec.logging
    assert (made.driver, dict(made.options)) == ("syslog", PROFILES["central"]["options"])
    shown = [answer.text] + [fixture.client.get(path).text for path in ("/services/web", "/services/web/revisions/1")]
    assert not any("secret-tag" in text or "logs.example" in text for text in shown)
