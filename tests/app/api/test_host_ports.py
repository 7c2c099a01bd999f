"""`host_port: auto` allocates a random host port for each instance, the same inside and outside the container."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from services.rollouts.state.host_ports import FIRST, LAST, MAX_ATTEMPTS
from tests.support.app_fixture import AppFixture


@pytest.fixture
def allocate_ports_from(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Allocate the lowest free port from now on, beginning at the given one."""

    def begin(first: int) -> None:
        monkeypatch.setattr("services.rollouts.state.host_ports.FIRST", first)
        monkeypatch.setattr("services.rollouts.state.host_ports.random.choice", min)

    begin(FIRST)
    return begin


def ports(app_fixture: AppFixture) -> list[int]:
    instances = app_fixture.client.get("/instances", params={"service": "web", "status": "serving"}).json()["items"]
    return sorted(one["host_port"] for one in instances)


def test_instances_each_get_a_host_port_and_listen_on_it(
    app_fixture: AppFixture, allocate_ports_from: Callable[[int], None]
) -> None:
    assert app_fixture.deploy(host_port="auto", replicas=3).status_code == 200
    assert ports(app_fixture) == [FIRST, FIRST + 1, FIRST + 2]
    for container in app_fixture.engine.containers.values():
        assert container.spec.port == container.spec.host_port
    addresses = [one["address"] for one in app_fixture.client.get("/instances?service=web").json()["items"]]
    assert sorted(address.rpartition(":")[2] for address in addresses) == [str(port) for port in ports(app_fixture)]


def test_excluded_host_ports_are_never_allocated(
    app_fixture: AppFixture, allocate_ports_from: Callable[[int], None]
) -> None:
    excluded = [FIRST, FIRST + 2]
    app_fixture.deploy(host_port={"auto": True, "exclude": excluded}, replicas=2)
    assert ports(app_fixture) == [FIRST + 1, FIRST + 3]


def test_host_port_that_another_program_has_taken_is_replaced_by_another(
    app_fixture: AppFixture, allocate_ports_from: Callable[[int], None]
) -> None:
    app_fixture.engine.taken_ports = {FIRST}
    draws = iter([FIRST, FIRST + 7])
    allocate_ports_from(FIRST)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("services.rollouts.state.host_ports.random.choice", lambda _: next(draws))
        assert app_fixture.deploy(host_port="auto", replicas=1).status_code == 200
    assert ports(app_fixture) == [FIRST + 7]
    events = [event["message"] for event in app_fixture.client.get("/deployments/1/events").json()["items"]]
    assert f"host port {FIRST} is in use: web-r1-1 tries {FIRST + 7}" in events


def test_deployment_fails_with_the_engines_error_when_no_host_port_is_free(app_fixture: AppFixture) -> None:
    app_fixture.engine.taken_ports = set(range(FIRST, LAST + 1))
    answer = app_fixture.deploy(host_port="auto", replicas=1)
    assert answer.status_code == 409
    deployment = answer.json()["deployment"]
    assert (deployment["status"], deployment["reason"]) == ("failed", "no_capacity")
    assert "port is already allocated" in deployment["message"]
    events = app_fixture.client.get("/deployments/1/events?limit=200").json()["items"]
    tries = [event for event in events if " is in use" in event["message"]]
    assert len(tries) == MAX_ATTEMPTS - 1


@pytest.mark.parametrize(
    "value", ["always", 8080, {}, {"auto": False}, {"auto": True, "exclude": [0]}, {"auto": True, "exclude": "8080"}]
)
def test_invalid_host_port_is_refused_by_field(app_fixture: AppFixture, value: object) -> None:
    answer = app_fixture.deploy(host_port=value)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"].startswith("host_port")
