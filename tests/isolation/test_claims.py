"""Claims that a token bound to services cannot make on other services, one rule per test."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from services.engine.port import EngineError
from tests.support.app_fixture import NEVER, READY, AppFixture

ANY, FREE = {"path_prefix": "/"}, {"path_prefix": "/thief"}


def bound(app_fixture: AppFixture, *services: str, scope: str = "write", **bounds: Any) -> dict[str, str]:
    return app_fixture.as_scope(scope, services=list(services or ("thief",)), **bounds)


def send(
    app_fixture: AppFixture, token: Mapping[str, str], service: str = "thief", *, query: str = "?wait=20", **fields: Any
) -> Any:
    if "thief:1" not in app_fixture.engine.registry:
        app_fixture.image("thief:1")
    body = {"service": service, "image": "thief:1", "port": 80, "healthcheck": READY, **fields}
    return app_fixture.client.post(f"/deployments{query}", json=body, headers=token)


def refused(answer: Any, field: str, *words: str) -> None:
    assert answer.status_code == 422, answer.text
    assert answer.json()["errors"][0]["field"] == field, answer.text
    assert all(word in answer.json()["errors"][0]["message"] for word in words), answer.text


def victim(app_fixture: AppFixture, **fields: Any) -> None:
    assert app_fixture.deploy("victim", port=80, **fields).status_code == 200


@pytest.mark.parametrize(
    ("theirs", "mine"),
    [
        ({"path_prefix": "/"}, {"path_prefix": "/login"}),
        ({"path_prefix": "/shop"}, {"path_prefix": "/shop/pay"}),
        ({"path_prefix": "/shop/"}, {"path_prefix": "/shop/pay"}),
        ({"path_prefix": "/shop"}, {"host": "shop.example.org", "path_prefix": "/shop"}),
        ({"path_prefix": "/shop"}, {"host": "shop.example.org"}),
        ({"host": "shop.example.org"}, {"host": "shop.example.org", "path_prefix": "/pay"}),
        ({"host": "shop.example.org"}, {"host": "SHOP.example.org", "path_prefix": "/pay", "strip_prefix": True}),
    ],
)
def test_bound_token_cannot_take_requests_of_foreign_route(
    app_fixture: AppFixture, theirs: dict[str, Any], mine: dict[str, Any]
) -> None:
    victim(app_fixture, routes=[theirs])
    refused(send(app_fixture, bound(app_fixture), routes=[mine]), "routes.0", "victim", "not bound")
    assert send(app_fixture, {}, routes=[mine]).status_code == 200, "a token that is not bound may"


@pytest.mark.parametrize(
    ("theirs", "mine"),
    [
        ({"path_prefix": "/shop"}, {"path_prefix": "/"}),
        ({"path_prefix": "/shop"}, {"path_prefix": "/shopping"}),
        ({"host": "shop.example.org"}, {"path_prefix": "/pay"}),
        ({"host": "shop.example.org"}, {"host": "pay.example.org"}),
        ({"host": "shop.example.org", "path_prefix": "/a"}, {"host": "shop.example.org"}),
    ],
)
def test_bound_token_may_add_route_that_takes_no_foreign_requests(
    app_fixture: AppFixture, theirs: dict[str, Any], mine: dict[str, Any]
) -> None:
    victim(app_fixture, routes=[theirs])
    assert send(app_fixture, bound(app_fixture), routes=[mine]).status_code == 200


def test_route_added_by_unbound_token_stays_with_service(app_fixture: AppFixture) -> None:
    victim(app_fixture, routes=[ANY])
    assert send(app_fixture, {}, routes=[FREE]).status_code == 200
    token = bound(app_fixture)
    assert send(app_fixture, token, routes=[FREE], environment={"A": "1"}).status_code == 200
    assert app_fixture.client.post("/services/thief/restart?wait=20", json={}, headers=token).status_code == 200


def test_hosts_and_prefixes_of_bound_token_limit_its_routes(app_fixture: AppFixture) -> None:
    victim(app_fixture, routes=[ANY, {"host": "shop.example.org", "path_prefix": "/pay"}])
    by_host, by_path = (
        bound(app_fixture, hosts=["*.example.org"]),
        bound(app_fixture, path_prefixes=["/thief", "/other"]),
    )
    assert send(app_fixture, by_host, routes=[{"host": "thief.example.org"}]).status_code == 200
    refused(send(app_fixture, by_host, routes=[{"path_prefix": "/x"}]), "routes.0", "outside the hosts")
    refused(send(app_fixture, by_host, routes=[{"host": "shop.example.org", "path_prefix": "/pay/x"}]), "routes.0", "victim")
    assert send(app_fixture, by_path, routes=[{"path_prefix": "/thief/a"}]).status_code == 200
    refused(send(app_fixture, by_path, routes=[{"path_prefix": "/thieves"}]), "routes.0", "outside the hosts")


def test_default_route_of_operator_is_no_claim(app_fixture: AppFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    rules = app_fixture.sluice.submitter._rules
    object.__setattr__(rules, "default_route", "/{name}")
    victim(app_fixture, routes=[ANY])
    assert send(app_fixture, bound(app_fixture)).status_code == 200
    refused(send(app_fixture, bound(app_fixture), routes=[{"path_prefix": "/victim"}]), "routes.0", "victim")


def test_foreign_volume_is_refused_and_new_volume_is_accepted(app_fixture: AppFixture) -> None:
    victim(app_fixture, volumes=["data:/var/lib/data"])
    token = bound(app_fixture)
    refused(send(app_fixture, token, volumes=["data:/loot:ro"]), "volumes.0.source", "victim")
    assert send(app_fixture, token, volumes=["mine:/data"]).status_code == 200
    assert send(app_fixture, token, volumes=["mine:/data"], environment={"A": "1"}).status_code == 200


def test_volume_once_used_by_foreign_service_stays_foreign(app_fixture: AppFixture) -> None:
    victim(app_fixture, volumes=["data:/var/lib/data"])
    assert app_fixture.deploy("victim", port=80, volumes=[]).status_code == 200
    refused(send(app_fixture, bound(app_fixture), volumes=["data:/loot"]), "volumes.0.source", "victim")


def test_volume_unknown_to_sluice_requires_unbound_token(app_fixture: AppFixture) -> None:
    app_fixture.engine.volumes.add("postgres")
    refused(send(app_fixture, bound(app_fixture), volumes=["postgres:/loot"]), "volumes", "postgres", "not bound")
    refused(send(app_fixture, bound(app_fixture), profiles={"p": {"volumes": ["postgres:/loot"]}}), "volumes", "postgres")
    assert send(app_fixture, {}, volumes=["postgres:/data"]).status_code == 200
    assert send(app_fixture, bound(app_fixture), environment={"A": "1"}).status_code == 200


def test_profile_gives_no_way_to_volume_made_outside_of_sluice_later(app_fixture: AppFixture) -> None:
    """The profile is stored while there is no such volume; then a database is started outside Sluice."""
    token, deployer = bound(app_fixture), bound(app_fixture, scope="deploy")
    assert send(app_fixture, token, profiles={"p": {"volumes": ["postgres:/loot"]}}).status_code == 200
    app_fixture.engine.volumes.add("postgres")
    for query in ("?dry_run=true", "?wait=20"):
        refused(send(app_fixture, token, profile="p", query=query), "volumes", "postgres", "not bound")
    answer = app_fixture.client.post("/deployments", json={"service": "thief", "profile": "p"}, headers=deployer)
    refused(answer, "volumes", "postgres", "not bound")
    assert send(app_fixture, token, environment={"A": "1"}).status_code == 200, "the profile is not used"
    assert send(app_fixture, {}, profile="p").status_code == 200
    assert send(app_fixture, token, environment={"A": "2"}).status_code == 200, "it is in force"


def test_pending_deployment_takes_no_volume_made_outside_of_sluice_meanwhile(app_fixture: AppFixture) -> None:
    assert send(app_fixture, {}).status_code == 200
    running = send(app_fixture, {}, healthcheck=NEVER, environment={"A": "1"}, query="")
    queued = send(app_fixture, bound(app_fixture), on_conflict="queue", volumes=["postgres:/loot"], query="")
    assert queued.status_code == 202, queued.text
    app_fixture.engine.volumes.add("postgres")
    app_fixture.client.post(f"/deployments/{running.json()['id']}/abort", json={})
    ended = app_fixture.client.get(f"/deployments/{queued.json()['id']}?wait=20").json()
    assert (ended["status"], ended["reason"]) == ("rolled_back", "invalid_spec"), ended
    assert "postgres" in ended["message"]


def test_failed_deployment_gives_no_claim_to_later_foreign_volume(app_fixture: AppFixture) -> None:
    app_fixture.engine.fail_next("start", EngineError("out of luck"))
    token = bound(app_fixture)
    send(app_fixture, token, volumes=["data:/loot"], query="?wait=1")
    victim(app_fixture, volumes=["data:/var/lib/data"])
    refused(send(app_fixture, token, volumes=["data:/loot"]), "volumes.0.source", "victim")


def test_network_requires_earlier_join_by_unbound_token(app_fixture: AppFixture) -> None:
    app_fixture.engine.networks |= {"backend"}
    victim(app_fixture, networks=["backend"])
    token = bound(app_fixture)
    refused(send(app_fixture, token, networks=["backend"]), "networks.0", "backend")
    assert send(app_fixture, {}, networks=["backend"]).status_code == 200
    assert send(app_fixture, token, networks=["backend"], environment={"A": "1"}).status_code == 200


def test_first_link_to_foreign_service_is_refused(app_fixture: AppFixture) -> None:
    victim(app_fixture)
    token = bound(app_fixture)
    refused(send(app_fixture, token, links=["victim"]), "links.0", "victim")
    refused(send(app_fixture, token, links=["nowhere"]), "links.0", "nowhere")
    assert app_fixture.deploy("friend", links=["victim"]).status_code == 200
    assert send(app_fixture, token, links=["victim"]).status_code == 200, "it is linked already"


def test_profile_with_fields_that_its_author_may_not_deploy_is_refused(app_fixture: AppFixture) -> None:
    victim(app_fixture, routes=[ANY], volumes=["data:/var/lib/data"])
    token = bound(app_fixture)
    refused(send(app_fixture, token, profiles={"p": {"routes": [FREE]}}), "profiles.p.routes.0", "victim")
    refused(send(app_fixture, token, profiles={"p": {"volumes": ["data:/x"]}}), "profiles.p.volumes.0.source", "victim")


def test_inactive_profile_gives_no_claim_to_its_fields(app_fixture: AppFixture) -> None:
    victim(app_fixture)
    assert app_fixture.deploy("friend", links=["victim"]).status_code == 200
    token = bound(app_fixture)
    assert send(app_fixture, token, profiles={"p": {"links": ["victim"]}}).status_code == 200, "it is linked already"
    assert app_fixture.deploy("friend", links=[]).status_code == 200
    refused(send(app_fixture, token, links=["victim"]), "links.0", "victim")
    refused(send(app_fixture, token, profile="p"), "links.0", "victim")
    assert send(app_fixture, token, environment={"A": "1"}).status_code == 200, "the profile is not used"


def test_base_fields_hidden_by_profile_are_checked_too(app_fixture: AppFixture) -> None:
    victim(app_fixture, routes=[ANY])
    answer = send(app_fixture, bound(app_fixture), routes=[FREE], profiles={"p": {"routes": []}}, profile="p")
    refused(answer, "routes.0", "victim")


def test_dry_run_is_refused_like_deployment(app_fixture: AppFixture) -> None:
    victim(app_fixture, routes=[ANY])
    refused(send(app_fixture, bound(app_fixture), routes=[FREE], query="?dry_run=true"), "routes.0", "victim")


def test_compose_file_is_refused_like_spec(app_fixture: AppFixture) -> None:
    app_fixture.image("thief:1")
    victim(app_fixture, volumes=["data:/var/lib/data"])
    file = "name: x\nservices: {thief: {image: 'thief:1', volumes: ['data:/loot']}}\nvolumes: {data: {external: true}}\n"
    headers = {**bound(app_fixture), "Content-Type": "application/yaml"}
    answer = app_fixture.client.post("/apply", content=file, headers=headers)
    assert answer.status_code == 422 and "victim" in answer.json()["detail"], answer.text


def test_rollback_is_checked_against_current_claims(app_fixture: AppFixture) -> None:
    """The revision took no foreign requests when it was created; the victim was deployed later."""
    token = bound(app_fixture)
    assert send(app_fixture, token, routes=[{"path_prefix": "/a/b"}]).status_code == 200
    assert send(app_fixture, token, routes=[], environment={"A": "1"}).status_code == 200
    victim(app_fixture, routes=[{"path_prefix": "/a"}])
    refused(app_fixture.client.post("/services/thief/rollback", json={}, headers=token), "routes.0", "victim")
    answer = app_fixture.client.post("/services/thief/rollback?wait=20", json={})
    assert answer.status_code == 200, answer.text


def test_retry_is_checked_against_current_claims(app_fixture: AppFixture) -> None:
    token = bound(app_fixture)
    app_fixture.engine.fail_next("start", EngineError("out of luck"))
    assert send(app_fixture, token, routes=[{"path_prefix": "/a/b"}]).status_code == 409
    victim(app_fixture, routes=[{"path_prefix": "/a"}])
    refused(app_fixture.client.post("/deployments/1/retry", json={}, headers=token), "routes.0", "victim")
    assert app_fixture.client.post("/deployments/1/retry?wait=20", json={}).status_code == 200


def test_retry_of_spec_that_never_served_requires_scope_of_its_fields(app_fixture: AppFixture) -> None:
    assert send(app_fixture, {}).status_code == 200
    app_fixture.engine.fail_next("start", EngineError("out of luck"))
    failed = send(app_fixture, {}, environment={"A": "1"})
    assert failed.status_code == 409
    app_fixture.image("thief:2")
    app_fixture.engine.fail_next("start", EngineError("out of luck"))
    image_alone = app_fixture.client.post("/deployments?wait=20", json={"service": "thief", "image": "thief:2"})
    assert image_alone.status_code == 409
    deployer, writer = bound(app_fixture, scope="deploy"), bound(app_fixture)
    first, second = (answer.json()["deployment"]["id"] for answer in (failed, image_alone))
    answer = app_fixture.client.post(f"/deployments/{first}/retry", json={}, headers=deployer)
    assert (answer.status_code, answer.json()["code"]) == (403, "insufficient_scope"), answer.text
    assert app_fixture.client.post(f"/deployments/{second}/retry?wait=20", json={}, headers=deployer).status_code == 200
    assert app_fixture.client.post(f"/deployments/{first}/retry?wait=20", json={}, headers=writer).status_code == 200


def test_retry_of_what_changed_nothing_needs_scope_of_its_fields(app_fixture: AppFixture) -> None:
    """Its revision has served, but its body is merged over another one now."""
    fields: dict[str, Any] = {"environment": {"A": "1"}, "routes": [{"path_prefix": "/a"}]}
    assert send(app_fixture, {}, **fields).status_code == 200
    app_fixture.engine.fail_next("start", EngineError("out of luck"))
    failed = send(app_fixture, {}, replicas=2, **fields)
    assert (failed.status_code, failed.json()["deployment"]["revision"]) == (409, 1)
    assert send(app_fixture, {}, environment={"A": "2"}, routes=[], labels={"l": "2"}).status_code == 200
    deployer = bound(app_fixture, scope="deploy")
    answer = app_fixture.client.post(f"/deployments/{failed.json()['deployment']['id']}/retry", json={}, headers=deployer)
    assert (answer.status_code, answer.json()["code"]) == (403, "insufficient_scope"), answer.text
    assert app_fixture.client.get("/services/thief").json()["spec"]["environment"] == {"A": "2"}


def test_pending_deployment_is_checked_again_on_activation(app_fixture: AppFixture) -> None:
    """Both deployments are accepted while another runs; the foreign one is activated first."""
    assert send(app_fixture, {}, replicas=1).status_code == 200
    paused = send(app_fixture, {}, healthcheck={"test": ["CMD", "false"], "disable": None}, environment={"A": "1"}, query="")
    token = bound(app_fixture)
    queued = send(app_fixture, token, on_conflict="queue", routes=[FREE], query="")
    assert queued.status_code == 202, queued.text
    victim(app_fixture, routes=[ANY])
    app_fixture.client.post(f"/deployments/{paused.json()['id']}/abort", json={})
    ended = app_fixture.client.get(f"/deployments/{queued.json()['id']}?wait=20").json()
    assert (ended["status"], ended["reason"]) == ("rolled_back", "invalid_spec"), ended
    assert "victim" in ended["message"]


def test_port_of_service_is_never_internal_port_of_later_service(app_fixture: AppFixture) -> None:
    """The gateway listens on both ports at the bridge's address when the service is linked."""
    assert send(app_fixture, {}, port=20002).status_code == 200
    victim(app_fixture)
    ports = [service.internal_port for service in app_fixture.gateway.services.values()]
    assert ports == [20001, 20003]


def test_token_bounds_of_routes_without_services_are_refused(app_fixture: AppFixture) -> None:
    answer = app_fixture.client.post("/tokens", json={"name": "x", "scope": "write", "hosts": ["a.example.org"]})
    assert answer.status_code == 422 and "need services" in answer.text
