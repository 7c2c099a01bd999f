"""What a bound token may not take from services that it does not cover, one story a rule."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from services.engine.port import EngineError
from tests.support.app_fixture import READY, House

ANY, FREE = {"path_prefix": "/"}, {"path_prefix": "/thief"}


def bound(house: House, *services: str, scope: str = "write", **bounds: Any) -> dict[str, str]:
    return house.as_scope(scope, services=list(services or ("thief",)), **bounds)


def send(house: House, token: Mapping[str, str], service: str = "thief", *, query: str = "?wait=20", **fields: Any) -> Any:
    if "thief:1" not in house.engine.registry:
        house.image("thief:1")
    body = {"service": service, "image": "thief:1", "port": 80, "healthcheck": READY, **fields}
    return house.client.post(f"/deployments{query}", json=body, headers=token)


def refused(answer: Any, field: str, *words: str) -> None:
    assert answer.status_code == 422, answer.text
    assert answer.json()["errors"][0]["field"] == field, answer.text
    assert all(word in answer.json()["errors"][0]["message"] for word in words), answer.text


def victim(house: House, **fields: Any) -> None:
    assert house.deploy("victim", port=80, **fields).status_code == 200


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
def test_a_bound_token_cannot_take_requests_of_a_foreign_route(
    house: House, theirs: dict[str, Any], mine: dict[str, Any]
) -> None:
    victim(house, routes=[theirs])
    refused(send(house, bound(house), routes=[mine]), "routes.0", "victim", "not bound")
    assert send(house, {}, routes=[mine]).status_code == 200, "a token that is not bound may"


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
def test_a_bound_token_may_have_a_route_that_takes_no_foreign_requests(
    house: House, theirs: dict[str, Any], mine: dict[str, Any]
) -> None:
    victim(house, routes=[theirs])
    assert send(house, bound(house), routes=[mine]).status_code == 200


def test_a_route_that_an_unbound_token_gave_stays_with_the_service(house: House) -> None:
    victim(house, routes=[ANY])
    assert send(house, {}, routes=[FREE]).status_code == 200
    token = bound(house)
    assert send(house, token, routes=[FREE], environment={"A": "1"}).status_code == 200
    assert house.client.post("/services/thief/restart?wait=20", json={}, headers=token).status_code == 200


def test_a_bound_tokens_own_hosts_and_prefixes_bound_its_routes_and_lie_within_broader_ones(house: House) -> None:
    victim(house, routes=[ANY, {"host": "shop.example.org", "path_prefix": "/pay"}])
    by_host, by_path = (
        bound(house, hosts=["*.example.org"]),
        bound(house, path_prefixes=["/thief", "/other"]),
    )
    assert send(house, by_host, routes=[{"host": "thief.example.org"}]).status_code == 200
    refused(send(house, by_host, routes=[{"path_prefix": "/x"}]), "routes.0", "outside of the hosts")
    refused(send(house, by_host, routes=[{"host": "shop.example.org", "path_prefix": "/pay/x"}]), "routes.0", "victim")
    assert send(house, by_path, routes=[{"path_prefix": "/thief/a"}]).status_code == 200
    refused(send(house, by_path, routes=[{"path_prefix": "/thieves"}]), "routes.0", "outside of the hosts")


def test_the_operators_default_route_is_no_claim(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    rules = house.sluice.requests._rules
    object.__setattr__(rules, "default_route", "/{name}")
    victim(house, routes=[ANY])
    assert send(house, bound(house)).status_code == 200
    refused(send(house, bound(house), routes=[{"path_prefix": "/victim"}]), "routes.0", "victim")


def test_a_foreign_volume_is_refused_and_a_new_one_is_not(house: House) -> None:
    victim(house, volumes=["data:/var/lib/data"])
    token = bound(house)
    refused(send(house, token, volumes=["data:/loot:ro"]), "volumes.0.source", "victim")
    assert send(house, token, volumes=["mine:/data"]).status_code == 200
    assert send(house, token, volumes=["mine:/data"], environment={"A": "1"}).status_code == 200


def test_a_volume_that_a_foreign_service_had_once_is_still_that_services(house: House) -> None:
    victim(house, volumes=["data:/var/lib/data"])
    assert house.deploy("victim", port=80, volumes=[]).status_code == 200
    refused(send(house, bound(house), volumes=["data:/loot"]), "volumes.0.source", "victim")


def test_a_volume_that_sluice_does_not_know_needs_an_unbound_token(house: House) -> None:
    house.engine.volumes.add("postgres")
    refused(send(house, bound(house), volumes=["postgres:/loot"]), "volumes", "postgres", "not bound")
    refused(send(house, bound(house), profiles={"p": {"volumes": ["postgres:/loot"]}}), "volumes", "postgres")
    assert send(house, {}, volumes=["postgres:/data"]).status_code == 200
    assert send(house, bound(house), environment={"A": "1"}).status_code == 200


def test_a_failed_deployment_gives_no_claim_to_a_volume_that_a_foreign_service_gets_later(house: House) -> None:
    house.engine.fail_next("start", EngineError("out of luck"))
    token = bound(house)
    send(house, token, volumes=["data:/loot"], query="?wait=1")
    victim(house, volumes=["data:/var/lib/data"])
    refused(send(house, token, volumes=["data:/loot"]), "volumes.0.source", "victim")


def test_a_network_is_joined_only_where_an_unbound_token_joined_it_before(house: House) -> None:
    house.engine.networks |= {"backend"}
    victim(house, networks=["backend"])
    token = bound(house)
    refused(send(house, token, networks=["backend"]), "networks.0", "backend")
    assert send(house, {}, networks=["backend"]).status_code == 200
    assert send(house, token, networks=["backend"], environment={"A": "1"}).status_code == 200


def test_the_first_link_to_a_foreign_service_is_refused(house: House) -> None:
    victim(house)
    token = bound(house)
    refused(send(house, token, links=["victim"]), "links.0", "victim")
    refused(send(house, token, links=["nowhere"]), "links.0", "nowhere")
    assert house.deploy("friend", links=["victim"]).status_code == 200
    assert send(house, token, links=["victim"]).status_code == 200, "it is linked already"


def test_a_profile_may_not_hold_what_its_author_could_not_deploy(house: House) -> None:
    victim(house, routes=[ANY], volumes=["data:/var/lib/data"])
    token = bound(house)
    refused(send(house, token, profiles={"p": {"routes": [FREE]}}), "profiles.p.routes.0", "victim")
    refused(send(house, token, profiles={"p": {"volumes": ["data:/x"]}}), "profiles.p.volumes.0.source", "victim")


def test_a_profile_that_is_not_in_force_gives_no_right_to_what_it_names(house: House) -> None:
    victim(house)
    assert house.deploy("friend", links=["victim"]).status_code == 200
    token = bound(house)
    assert send(house, token, profiles={"p": {"links": ["victim"]}}).status_code == 200, "it is linked already"
    assert house.deploy("friend", links=[]).status_code == 200
    refused(send(house, token, links=["victim"]), "links.0", "victim")
    refused(send(house, token, profile="p"), "links.0", "victim")
    assert send(house, token, environment={"A": "1"}).status_code == 200, "the profile is not used"


def test_a_base_that_a_profile_hides_may_not_hold_it_either(house: House) -> None:
    victim(house, routes=[ANY])
    answer = send(house, bound(house), routes=[FREE], profiles={"p": {"routes": []}}, profile="p")
    refused(answer, "routes.0", "victim")


def test_a_dry_run_is_refused_as_the_deployment_is(house: House) -> None:
    victim(house, routes=[ANY])
    refused(send(house, bound(house), routes=[FREE], query="?dry_run=true"), "routes.0", "victim")


def test_a_compose_file_is_refused_as_a_spec_is(house: House) -> None:
    house.image("thief:1")
    victim(house, volumes=["data:/var/lib/data"])
    file = "name: x\nservices: {thief: {image: 'thief:1', volumes: ['data:/loot']}}\nvolumes: {data: {external: true}}\n"
    headers = {**bound(house), "Content-Type": "application/yaml"}
    answer = house.client.post("/apply", content=file, headers=headers)
    assert answer.status_code == 422 and "victim" in answer.json()["detail"], answer.text


def test_a_rollback_is_checked_by_what_others_have_now(house: House) -> None:
    """The revision took nothing when it was made; the victim came later."""
    token = bound(house)
    assert send(house, token, routes=[{"path_prefix": "/a/b"}]).status_code == 200
    assert send(house, token, routes=[], environment={"A": "1"}).status_code == 200
    victim(house, routes=[{"path_prefix": "/a"}])
    refused(house.client.post("/services/thief/rollback", json={}, headers=token), "routes.0", "victim")
    answer = house.client.post("/services/thief/rollback?wait=20", json={})
    assert answer.status_code == 200, answer.text


def test_a_retry_is_checked_by_what_others_have_now(house: House) -> None:
    token = bound(house)
    house.engine.fail_next("start", EngineError("out of luck"))
    assert send(house, token, routes=[{"path_prefix": "/a/b"}]).status_code == 409
    victim(house, routes=[{"path_prefix": "/a"}])
    refused(house.client.post("/deployments/1/retry", json={}, headers=token), "routes.0", "victim")
    assert house.client.post("/deployments/1/retry?wait=20", json={}).status_code == 200


def test_a_retry_of_what_never_served_needs_the_scope_of_its_fields(house: House) -> None:
    assert send(house, {}).status_code == 200
    house.engine.fail_next("start", EngineError("out of luck"))
    failed = send(house, {}, environment={"A": "1"})
    assert failed.status_code == 409
    house.image("thief:2")
    house.engine.fail_next("start", EngineError("out of luck"))
    image_alone = house.client.post("/deployments?wait=20", json={"service": "thief", "image": "thief:2"})
    assert image_alone.status_code == 409
    deployer, writer = bound(house, scope="deploy"), bound(house)
    first, second = (answer.json()["deployment"]["id"] for answer in (failed, image_alone))
    answer = house.client.post(f"/deployments/{first}/retry", json={}, headers=deployer)
    assert (answer.status_code, answer.json()["code"]) == (403, "insufficient_scope"), answer.text
    assert house.client.post(f"/deployments/{second}/retry?wait=20", json={}, headers=deployer).status_code == 200
    assert house.client.post(f"/deployments/{first}/retry?wait=20", json={}, headers=writer).status_code == 200


def test_a_pending_deployment_is_checked_again_when_it_begins(house: House) -> None:
    """Both were accepted while the image was pulled; the foreign one came into force first."""
    assert send(house, {}, replicas=1).status_code == 200
    paused = send(house, {}, healthcheck={"test": ["CMD", "false"], "disable": None}, environment={"A": "1"}, query="")
    token = bound(house)
    queued = send(house, token, on_conflict="queue", routes=[FREE], query="")
    assert queued.status_code == 202, queued.text
    victim(house, routes=[ANY])
    house.client.post(f"/deployments/{paused.json()['id']}/abort", json={})
    ended = house.client.get(f"/deployments/{queued.json()['id']}?wait=20").json()
    assert (ended["status"], ended["reason"]) == ("rolled_back", "invalid_spec"), ended
    assert "victim" in ended["message"]


def test_a_services_own_port_never_becomes_the_internal_port_of_a_later_one(house: House) -> None:
    """The gateway listens on both at the bridge's address when the service is linked."""
    assert send(house, {}, port=20002).status_code == 200
    victim(house)
    ports = [service.internal_port for service in house.gateway.services.values()]
    assert ports == [20001, 20003]


def test_bounds_of_routes_without_services_are_refused(house: House) -> None:
    answer = house.client.post("/tokens", json={"name": "x", "scope": "write", "hosts": ["a.example.org"]})
    assert answer.status_code == 422 and "need services" in answer.text
