"""Random valid requests with two tokens bound to disjoint services; neither affects the other's services.

The state of a service is read from the routers and the engine, independently of Sluice's rules: the service that answers
each of many addresses, its published configuration, and the volumes and networks of its containers.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from itertools import product
from typing import Any

import pytest

from services.rollouts.state.routing_config import linked_services
from tests.support.app_fixture import READY, AppFixture
from tests.tiers import examples

ACTS = examples(60, full=600)
SEEDS = examples(4, full=8)
HOSTS = (None, "a.example.org", "b.example.org", "common.example.org")
PATHS = ("/", "/x", "/x/y", "/x/y/z", "/z", "/a-one", "/b-one/deep")
VOLUMES = ("one", "two", "three", "unmanaged", "operators")
NETWORKS = ("backend", "frontend")
TEAMS = {"a": ("a-one", "a-two"), "b": ("b-one", "b-two")}
OPERATORS = ("db", "portal")
ADDRESSES = [(host or "other.example.org", path + rest) for host, path, rest in product(HOSTS, PATHS, ("", "/below"))]


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("seed", range(SEEDS))
def test_requests_of_bound_token_never_change_foreign_services(app_fixture: AppFixture, seed: int) -> None:
    chance = random.Random(seed)
    app_fixture.engine.networks |= set(NETWORKS)
    app_fixture.engine.volumes |= {"unmanaged"}
    app_fixture.image("app:1", "app:2", "app:3")
    prepare(app_fixture)
    tokens = {team: app_fixture.as_scope("write", services=[f"{team}-*"]) for team in TEAMS}
    outcomes: Counter[str] = Counter()
    for act in range(ACTS):
        team = chance.choice(sorted(TEAMS))
        before = foreign(app_fixture, team)
        method, path, body = chosen(chance, app_fixture, team)
        answer = app_fixture.client.request(method, path, json=body, headers=tokens[team])
        outcomes[str(answer.status_code)] += 1
        assert answer.status_code < 500, f"seed {seed}, act {act}: {method} {path} {body}: {answer.text}"
        after, said = foreign(app_fixture, team), f"seed {seed}, act {act}: {method} {path} {body}: {answer.text}"
        assert (after["published"], after["runs"]) == (before["published"], before["runs"]), said
        assert after["linked"] <= before["linked"], said
        assert after["answers"].items() >= before["answers"].items(), (
            said
        )  # the removal of a route may give them more addresses
        assert not shared_volumes(app_fixture), f"seed {seed}, act {act}: {method} {path} {body}"
    assert outcomes["200"] > ACTS // 5 and outcomes["422"] > ACTS // 10, f"most acts come to nothing: {outcomes}"


def prepare(app_fixture: AppFixture) -> None:
    """Deploy the services that the operator runs beside the two teams."""
    assert app_fixture.deploy("db", "app:1", port=80, volumes=["operators:/data"], networks=["backend"]).status_code == 200
    routes = [{"host": "common.example.org"}, {"path_prefix": "/z"}]
    assert app_fixture.deploy("portal", "app:1", port=80, routes=routes, links=["db"]).status_code == 200


def chosen(chance: random.Random, app_fixture: AppFixture, team: str) -> tuple[str, str, dict[str, Any] | None]:
    """Return a random request of a team for one of its services; the request is valid by itself."""
    service = chance.choice(TEAMS[team])
    kind = chance.choice(["deploy"] * 6 + ["rollback", "restart", "scale", "retry", "remove", "profile", "dry run"])
    known = {each["name"] for each in app_fixture.client.get("/services?limit=200").json()["items"]}
    if kind in ("deploy", "dry run", "profile") or service not in known:
        body = {"service": service, "image": f"app:{chance.randint(1, 3)}", "port": 80, "healthcheck": READY}
        body |= fields(chance) | {"mode": chance.choice(["merge", "merge", "replace"])}
        if kind == "profile":
            body |= {"profiles": {"p": fields(chance)}, "profile": chance.choice(["p", None])}
        return "POST", "/deployments?dry_run=true" if kind == "dry run" else "/deployments?wait=20", body
    if kind == "remove":
        return "DELETE", f"/services/{service}?wait=20", None
    if kind == "retry":
        ids = [each["id"] for each in app_fixture.client.get(f"/deployments?service={service}&limit=200").json()["items"]]
        return "POST", f"/deployments/{chance.choice(ids)}/retry?wait=20", {}
    bodies = {"rollback": {}, "restart": {}, "scale": {"replicas": chance.randint(0, 2)}}
    return "POST", f"/services/{service}/{kind}?wait=20", bodies[kind]


def fields(chance: random.Random) -> dict[str, Any]:
    """Return random values of some fields that can affect other services."""
    every: dict[str, Callable[[], Any]] = {
        "routes": lambda: [
            {"host": host, "path_prefix": path, "strip_prefix": chance.random() < 0.3}
            for host, path in chance.sample(list(product(HOSTS, PATHS)), chance.randint(0, 2))
        ],
        "volumes": lambda: [
            {"source": name, "target": f"/{name}", "shared": True} for name in chance.sample(VOLUMES, chance.randint(0, 2))
        ],
        "networks": lambda: chance.sample(NETWORKS, chance.randint(0, 1)),
        "links": lambda: chance.sample([*TEAMS["a"], *TEAMS["b"], *OPERATORS], chance.randint(0, 2)),
        "environment": lambda: {"N": str(chance.randint(0, 9))},
    }
    return {name: every[name]() for name in chance.sample(sorted(every), chance.randint(1, 2))}


def foreign(app_fixture: AppFixture, team: str) -> dict[str, Any]:
    """Return the state of the services that the team's token does not cover."""
    mine = set(TEAMS[team])
    # `linked` follows the store with a delay, so the value is read from the store.
    published = {
        name: replace(service, linked=False) for name, service in app_fixture.gateway.services.items() if name not in mine
    }
    linked: set[str] = app_fixture.call(app_fixture.sluice.store.read, linked_services)
    answering = {address: winner(app_fixture, *address) for address in ADDRESSES}
    running = {
        container.spec.id: (
            container.id,
            container.spec.fields.volumes,
            container.spec.fields.networks,
            dict(container.spec.hosts),
        )
        for container in app_fixture.engine.containers.values()
        if container.spec.service not in mine
    }
    return {
        "published": published,
        "answers": {address: name for address, name in answering.items() if name is not None and name not in mine},
        "runs": running,
        "linked": linked - mine,
    }


def winner(app_fixture: AppFixture, host: str, path: str) -> str | None:
    """Return the service that answers: routes with the host first, then the longest prefix of whole segments."""
    found = [
        (route.host is not None, len(route.path_prefix.rstrip("/")), name)
        for name, service in app_fixture.gateway.services.items()
        for route in service.routes
        if route.host in (None, host) and (path.rstrip("/") + "/").startswith(route.path_prefix.rstrip("/") + "/")
    ]
    return max(found)[2] if found else None


def shared_volumes(app_fixture: AppFixture) -> list[str]:
    """Return the volumes that containers of more than one owner mount."""
    owners: dict[str, set[str]] = {}
    for service, volume in mounts(app_fixture):
        owners.setdefault(volume, set()).add(next((team for team in TEAMS if service in TEAMS[team]), "operator"))
    return [volume for volume, names in owners.items() if len(names) > 1]


def mounts(app_fixture: AppFixture) -> Iterator[tuple[str, str]]:
    containers: Mapping[str, Any] = app_fixture.engine.containers
    for container in containers.values():
        for volume in container.spec.fields.volumes:
            if volume.type == "volume":
                yield container.spec.service, volume.source
