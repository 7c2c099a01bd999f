"""Defects of the shell scripts that Sluice replaced (docs/spring.md has the whole list)."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from services.rollouts.state.host_ports import FIRST, LAST
from tests.support.app_fixture import NEVER, AppFixture, eventually


def containers(app_fixture: AppFixture, service: str) -> dict[str, str]:
    """Map each instance of the service that has a container to that container's id."""
    return {one.spec.id: one.id for one in app_fixture.engine.containers.values() if one.spec.service == service}


def test_service_name_within_another_name_is_another_service(app_fixture: AppFixture) -> None:
    others = ("web-1", "web-10", "my-web", "web-r1")
    for service in (*others, "web"):
        assert app_fixture.deploy(service, replicas=1).status_code == 200
    before = {service: containers(app_fixture, service) for service in others}
    assert app_fixture.deploy(image="web:2").status_code == 200
    assert app_fixture.client.delete("/services/web?wait=20").status_code == 200
    assert containers(app_fixture, "web") == {}
    assert {service: containers(app_fixture, service) for service in others} == before


def test_scale_from_eleven_instances_to_one_keeps_only_the_first(app_fixture: AppFixture) -> None:
    app_fixture.deploy(replicas=11)
    assert app_fixture.client.post("/services/web/scale?wait=20", json={"replicas": 1}).status_code == 200
    assert set(containers(app_fixture, "web")) == {"web-r1-1"}


def test_failed_new_instance_removes_all_new_ones_and_keeps_the_old_ones(app_fixture: AppFixture) -> None:
    app_fixture.deploy(replicas=3)
    before = containers(app_fixture, "web")
    number = app_fixture.deploy(image="web:2", wait="", healthcheck=NEVER).json()["id"]
    eventually(lambda: len(containers(app_fixture, "web")) == 6, "three new ones beside three old ones")
    app_fixture.engine.set_health("web-r2-1", "healthy")
    app_fixture.engine.kill("web-r2-3", 3)
    deployment = eventually(
        lambda: (found := app_fixture.client.get(f"/deployments/{number}").json())["finished_at"] and found, "it ends"
    )
    assert (deployment["status"], deployment["reason"]) == ("rolled_back", "unhealthy_instance")
    assert containers(app_fixture, "web") == before


@pytest.fixture
def lowest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make every random choice of a port the same: the lowest free one."""
    monkeypatch.setattr("services.rollouts.state.host_ports.random.choice", min)


@pytest.mark.usefixtures("lowest")
def test_concurrent_deployments_get_distinct_ports_and_names(app_fixture: AppFixture) -> None:
    services = ("api", "web", "auth")
    for service in services:
        app_fixture.image(f"{service}:1")

    def deploy(service: str) -> int:
        return app_fixture.deploy(service, f"{service}:1", host_port="auto", replicas=3).status_code

    with ThreadPoolExecutor(len(services)) as together:
        assert list(together.map(deploy, services)) == [200, 200, 200]
    instances = app_fixture.client.get("/instances", params={"limit": "200"}).json()["items"]
    ports = [one["host_port"] for one in instances]
    assert sorted(ports) == list(range(FIRST, FIRST + 9))
    assert len({one["id"] for one in instances}) == 9


def test_host_ports_of_eureka_and_spring_are_never_allocated() -> None:
    assert not {8761, 8080, 3000} & set(range(FIRST, LAST + 1))


def test_concurrent_deployments_of_one_service_end_as_the_later_one(app_fixture: AppFixture) -> None:
    for tag in (1, 2):
        app_fixture.image(f"web:{tag}")
    with ThreadPoolExecutor(2) as together:
        answers = list(together.map(lambda tag: app_fixture.deploy(image=f"web:{tag}", replicas=2), (1, 2)))
    last = max((answer.json() for answer in answers if answer.status_code == 200), key=lambda found: found["id"])
    assert {one.spec.revision for one in app_fixture.engine.containers.values()} == {last["revision"]}
    assert set(containers(app_fixture, "web")) == {f"web-r{last['revision']}-1", f"web-r{last['revision']}-2"}


def test_tests_named_in_the_documentation_exist() -> None:
    root = Path(__file__).parents[3]
    named = []
    for page in (root / "docs").glob("*.md"):
        path = ""
        for found in re.finditer(r"`(tests/[\w/]+\.py)?::(\w+)`", page.read_text()):
            path = found[1] or path
            named.append((path, found[2]))
    assert len(named) > 15
    assert [one for one in named if f"def {one[1]}(" not in (root / one[0]).read_text()] == []
