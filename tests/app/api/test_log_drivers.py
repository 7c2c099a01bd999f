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
def app_fixture(tmp_path: Path) -> Iterator[AppFixture]:
    with living(build(tmp_path / "data", log_drivers=PROFILES)) as made:
        yield made


def admin_socket(app_fixture: AppFixture) -> dict[str, Any]:
    return {"driver": "syslog", "options": {"syslog-address": f"unix://{app_fixture.data}/gateway/admin.sock"}}


def store_logging(app_fixture: AppFixture, number: int, logging: dict[str, Any]) -> None:
    """Store a log driver in the revision, as if the revision was made before the rule."""

    def change(session: Session) -> None:
        row = session.get_one(Revision, ("web", number))
        row.spec, row.effective = {**row.spec, "logging": logging}, {**row.effective, "logging": logging}

    app_fixture.call(app_fixture.sluice.store.write, change)


def started(app_fixture: AppFixture) -> int:
    return sum(method == "start" for method, _ in app_fixture.engine.calls)


def test_log_driver_that_writes_to_the_gateways_socket_is_refused(app_fixture: AppFixture) -> None:
    bodies: list[dict[str, Any]] = [
        {"logging": admin_socket(app_fixture)},
        {"logging": {"driver": "gelf", "options": {"gelf-address": "tcp://127.0.0.1:7080"}}},
        {"profile": "prod", "profiles": {"prod": {"logging": admin_socket(app_fixture)}}},
    ]
    for body in bodies:
        answer = app_fixture.deploy(**body)
        assert answer.status_code == 422, answer.text
        assert [error["field"] for error in answer.json()["errors"]] == ["logging.driver"]
        assert (
            app_fixture.client.post(
                "/deployments?dry_run=true", json={"service": "web", "image": "web:1", **body}
            ).status_code
            == 422
        )
    driver = f"logging: {{driver: syslog, options: {{syslog-address: 'unix://{app_fixture.data}/gateway/admin.sock'}}}}"
    reported = app_fixture.client.post(
        "/apply?project=shop",
        content=f"services:\n  web:\n    image: web:1\n    {driver}\n",
        headers={"Content-Type": "application/yaml"},
    )
    assert reported.status_code == 422 and "logging" in reported.json()["errors"][0]["field"], reported.text
    assert started(app_fixture) == 0


def test_stored_log_driver_that_is_no_longer_allowed_is_not_started_again(app_fixture: AppFixture) -> None:
    assert app_fixture.deploy().status_code == 200
    assert app_fixture.deploy(environment={"A": "1"}).status_code == 200
    store_logging(app_fixture, 1, admin_socket(app_fixture))
    before = started(app_fixture)
    rollback = app_fixture.client.post("/services/web/rollback", json={"to_revision": 1})
    assert (rollback.status_code, rollback.json()["errors"][0]["field"]) == (422, "logging.driver")
    store_logging(app_fixture, 2, admin_socket(app_fixture))
    assert app_fixture.client.post("/services/web/restart").json()["errors"][0]["field"] == "logging.driver"
    assert app_fixture.client.post("/services/web/scale", json={"replicas": 2}).status_code == 422
    assert started(app_fixture) == before
    assert app_fixture.client.get("/services/web/revisions/2").json()["effective"]["logging"]["driver"] == "syslog"


def test_retry_with_a_stored_log_driver_that_is_no_longer_allowed_is_refused(app_fixture: AppFixture) -> None:
    app_fixture.image("web:1")
    assert app_fixture.deploy().status_code == 200
    app_fixture.engine.registry.clear()
    app_fixture.engine.images.clear()
    failed = app_fixture.client.post("/deployments?wait=20", json={"service": "web", "image": "web:gone"}).json()[
        "deployment"
    ]
    store_logging(app_fixture, 1, admin_socket(app_fixture))
    answer = app_fixture.client.post(f"/deployments/{failed['id']}/retry")
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "logging.driver")


def test_instance_with_a_log_driver_that_is_no_longer_allowed_is_not_replaced(app_fixture: AppFixture) -> None:
    assert app_fixture.deploy().status_code == 200
    store_logging(app_fixture, 1, admin_socket(app_fixture))
    before = started(app_fixture)
    app_fixture.engine.vanish("web-r1-1")

    def failure() -> str:
        rows = app_fixture.client.get("/instances?service=web&status=failed").json()["items"]
        events = app_fixture.client.get("/events?service=web").json()["items"] if rows else []
        return next((event["message"] for event in events if "cannot be started" in event["message"]), "")

    assert "logging.driver" in eventually(failure, "the replacement is refused")
    assert started(app_fixture) == before


def test_refused_services_names_a_service_whose_spec_is_no_longer_allowed(app_fixture: AppFixture) -> None:
    rules = AdmissionRules(log_drivers={"central": LogConfig("syslog")})
    assert app_fixture.deploy().status_code == 200
    assert app_fixture.call(app_fixture.sluice.store.read, partial(refused_services, rules)) == {}
    store_logging(app_fixture, 1, admin_socket(app_fixture))
    refused = app_fixture.call(app_fixture.sluice.store.read, partial(refused_services, rules))
    assert list(refused) == ["web"] and refused["web"].startswith("logging.driver: ")


def test_log_profile_options_reach_the_container_and_no_answer(app_fixture: AppFixture) -> None:
    answer = app_fixture.deploy(logging={"driver": "central"})
    assert answer.status_code == 200, answer.text
    made = app_fixture.engine.containers["web-r1-1"].spec.logging
    assert (made.driver, dict(made.options)) == ("syslog", PROFILES["central"]["options"])
    shown = [answer.text] + [app_fixture.client.get(path).text for path in ("/services/web", "/services/web/revisions/1")]
    assert not any("secret-tag" in text or "logs.example" in text for text in shown)
