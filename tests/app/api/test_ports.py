"""A service that requests are sent to has a port: refused at once if its spec says so, else when its image is known."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.app_fixture import NEVER, AppFixture, eventually

pytestmark = pytest.mark.slow

ROUTES = [{"host": "shop.example.org"}]


def failed(app_fixture: AppFixture, **fields: Any) -> dict[str, Any]:
    """Deploy, and return the deployment, which must have failed for want of a port before anything started."""
    before = app_fixture.count("/instances")
    refused = app_fixture.client.post("/deployments?wait=20", json={"service": "web", **fields})
    assert refused.status_code == 409, refused.text
    deployment: dict[str, Any] = refused.json()["deployment"]
    assert deployment["reason"] == "image_port_unknown", deployment
    assert app_fixture.count("/instances") == before
    return deployment


def test_next_image_that_exposes_one_more_port_keeps_the_previous_port(app_fixture: AppFixture) -> None:
    app_fixture.deploy(routes=ROUTES)
    app_fixture.engine.add_image("web:metrics", ports=(8000, 9090))
    made = app_fixture.client.post("/deployments?wait=20", json={"service": "web", "image": "web:metrics"}).json()
    assert made["status"] == "succeeded"
    assert app_fixture.client.get("/services/web/revisions/2").json()["port"] == 8000
    assert [(each["code"], "port 8000 stays" in each["message"]) for each in made["warnings"]] == [("port_ambiguous", True)]


@pytest.mark.parametrize("ports", [(), (9090, 9091)])
def test_next_image_without_the_previous_port_fails_and_the_old_one_serves(
    app_fixture: AppFixture, ports: tuple[int, ...]
) -> None:
    app_fixture.deploy(routes=ROUTES)
    app_fixture.engine.add_image("web:2", ports=ports)
    deployment = failed(app_fixture, image="web:2")
    assert deployment["status"] == "rolled_back"
    assert "the spec has routes" in deployment["message"] and "set port" in deployment["message"]
    assert app_fixture.client.get("/services/web").json()["serving"] == 1


@pytest.mark.parametrize(
    "fields", [{"routes": ROUTES}, {"healthcheck": {"path": "/up"}}, {"healthcheck": {"tcp": True}}], ids=str
)
def test_first_image_without_a_port_fails_if_the_spec_needs_one(app_fixture: AppFixture, fields: dict[str, Any]) -> None:
    app_fixture.engine.add_image("web:1", ports=())
    assert failed(app_fixture, image="web:1", **fields)["status"] == "failed"


def test_first_image_without_a_port_fails_if_another_service_links_to_it(app_fixture: AppFixture) -> None:
    app_fixture.deploy("shop", links=["web"])
    app_fixture.engine.add_image("web:1", ports=())
    assert 'service "shop" links to this service' in failed(app_fixture, image="web:1")["message"]


def test_service_that_had_a_port_does_not_become_a_worker_by_its_image(app_fixture: AppFixture) -> None:
    """Others may know it by its internal address alone."""
    app_fixture.deploy()
    app_fixture.engine.add_image("web:2", ports=())
    assert "revision 1 has port 8000" in failed(app_fixture, image="web:2")["message"]
    assert app_fixture.deploy(image="web:2", port=None).json()["status"] == "succeeded"


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"routes": ROUTES}, "routes"),
        ({"healthcheck": {"path": "/up"}}, "healthcheck.path"),
        ({"healthcheck": {"tcp": True}}, "healthcheck.tcp"),
        ({"eureka": {"url": "http://eureka.example.org:8761/eureka"}}, "eureka"),
    ],
)
def test_null_port_is_refused_beside_a_part_that_needs_a_port(
    app_fixture: AppFixture, fields: dict[str, Any], field: str
) -> None:
    refused = app_fixture.client.post("/deployments", json={"service": "web", "image": "web:1", "port": None, **fields})
    assert refused.status_code == 422, refused.text
    assert [error["field"] for error in refused.json()["errors"]] == [field]
    assert app_fixture.count("/deployments") == 0


def test_null_port_is_refused_while_another_service_links_to_it(app_fixture: AppFixture) -> None:
    app_fixture.deploy()
    app_fixture.deploy("shop", links=["web"])
    refused = app_fixture.client.post("/deployments", json={"service": "web", "port": None})
    assert refused.status_code == 422 and "shop" in refused.json()["errors"][0]["message"]


def test_rollback_to_a_worker_is_refused_while_another_service_links_to_it(app_fixture: AppFixture) -> None:
    app_fixture.deploy(port=None)
    app_fixture.deploy(port=8000)
    app_fixture.deploy("shop", links=["web"])
    refused = app_fixture.client.post("/services/web/rollback", json={})
    assert refused.status_code == 422 and "shop" in refused.json()["errors"][0]["message"]


def test_route_that_is_removed_on_purpose_is_no_failure(app_fixture: AppFixture) -> None:
    app_fixture.deploy(routes=ROUTES)
    app_fixture.engine.add_image("web:2", ports=())
    assert app_fixture.deploy(image="web:2", port=None, routes=[]).json()["status"] == "succeeded"


def test_worker_of_a_compose_file_stays_one_although_its_neighbours_link_to_it(app_fixture: AppFixture) -> None:
    """In a Compose file each service finds all others on its networks by name, workers included."""
    app_fixture.engine.add_image("front:1")
    for number in (1, 2):
        app_fixture.engine.add_image(f"worker:{number}", ports=())
        front = "front: {image: front:1, healthcheck: {disable: true}}"
        body = {"compose": f"services: {{{front}, worker: {{image: worker:{number}}}}}"}
        applied = app_fixture.client.post("/apply?project=shop&wait=20", json=body)
        assert applied.status_code == 200, applied.text
    assert app_fixture.client.get("/services/worker").json()["revision"] == 2


def test_link_that_is_made_during_a_deployment_to_a_worker_fails_it_before_the_old_instance_goes(
    app_fixture: AppFixture,
) -> None:
    app_fixture.deploy()
    running = app_fixture.deploy(wait="", port=None, healthcheck=NEVER).json()["id"]
    eventually(lambda: "web-r2-1" in app_fixture.engine.running, "web-r2-1 runs")
    app_fixture.deploy("shop", links=["web"])
    app_fixture.engine.set_health("web-r2-1", "healthy")
    ended = app_fixture.client.get(f"/deployments/{running}?wait=20").json()
    assert (ended["status"], ended["reason"]) == ("rolled_back", "image_port_unknown"), ended["message"]
    assert app_fixture.engine.running == ["shop-r1-1", "web-r1-1"]


def test_dry_run_says_that_the_deployment_would_fail(app_fixture: AppFixture) -> None:
    app_fixture.deploy(routes=ROUTES)
    app_fixture.engine.add_image("web:2", ports=(), pulled=False)
    answer = app_fixture.client.post("/deployments?dry_run=true", json={"service": "web", "image": "web:2"})
    preview = answer.json()
    assert [warning["code"] for warning in preview["warnings"]] == ["image_port_unknown"]
    assert (preview["steps"], preview["diff"], preview["unchanged"]) == ([], [], False)
    assert "port is not set" in preview["message"]
