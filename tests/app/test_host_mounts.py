"""No service mounts a host path that another service can change, in either order of deployment."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlmodel import Session

from services.store.tables import Revision
from tests.support.app_fixture import AppFixture, build, eventually, living


@pytest.fixture
def app_fixture(tmp_path: Path) -> Iterator[AppFixture]:
    with living(build(tmp_path / "data", host_roots=["/srv", str(tmp_path)])) as made:
        yield made


def errors(app_fixture: AppFixture, service: str, *volumes: Any) -> dict[str, str]:
    answer = app_fixture.deploy(service, volumes=list(volumes))
    return {} if answer.status_code == 200 else {each["field"]: each["message"] for each in answer.json()["errors"]}


def store_volumes(app_fixture: AppFixture, service: str, number: int, *volumes: str) -> None:
    """Store volumes in the revision, as if the revision was made before the rule."""

    def change(session: Session) -> None:
        row = session.get_one(Revision, (service, number))
        row.spec, row.effective = {**row.spec, "volumes": volumes}, {**row.effective, "volumes": volumes}

    app_fixture.call(app_fixture.sluice.store.write, change)


def test_host_path_below_a_writable_mount_of_another_service_is_refused(app_fixture: AppFixture) -> None:
    assert errors(app_fixture, "maker", "/srv/shared:/data") == {}
    reported = errors(app_fixture, "thief", "/srv/own:/own", "/srv/shared/link:/data:ro")
    assert list(reported) == ["volumes.1.source"]
    assert '/srv/shared/link is in /srv/shared, which service "maker" mounts writable' in reported["volumes.1.source"]


def test_writable_mount_above_a_path_mounted_by_another_service_is_refused(app_fixture: AppFixture) -> None:
    assert errors(app_fixture, "reader", "/srv/shared/conf:/conf:ro") == {}
    reported = errors(app_fixture, "maker", "/srv/shared/:/data")
    assert '/srv/shared contains /srv/shared/conf, which service "reader" mounts' in reported["volumes.0.source"]
    assert errors(app_fixture, "maker", "/srv/shared/:/data:ro") == {}


def test_host_path_may_be_mounted_by_several_services(app_fixture: AppFixture) -> None:
    assert errors(app_fixture, "one", "/srv/shared:/data") == {}
    assert errors(app_fixture, "two", "/srv//shared/:/data", "/srv/shared-too:/too", "/srv/share:/three:ro") == {}


def test_host_paths_of_one_spec_and_of_its_active_revisions_are_checked_too(app_fixture: AppFixture) -> None:
    reported = errors(app_fixture, "web", "/srv/a:/a", "/srv/a/b:/b:ro")
    assert set(reported) == {"volumes.0.source", "volumes.1.source"} and "this service" in reported["volumes.1.source"]
    assert errors(app_fixture, "web", "/srv/a:/a:ro", "/srv/a/b:/b") == {}
    assert errors(app_fixture, "web", "/srv/a:/a") == {"volumes.0.source": reported["volumes.0.source"]}
    assert errors(app_fixture, "web", "/srv/a/b:/b") == {}
    assert errors(app_fixture, "web", "/srv/a:/a"), "its instance of before could still change the path"
    assert errors(app_fixture, "web") == {}
    assert errors(app_fixture, "web", "/srv/a:/a") == {}


def test_rollback_to_a_host_path_that_another_service_can_change_is_refused(app_fixture: AppFixture) -> None:
    assert errors(app_fixture, "web", "/srv/a/b:/b:ro") == {}
    assert errors(app_fixture, "web") == {}
    assert errors(app_fixture, "maker", "/srv/a:/a") == {}
    answer = app_fixture.client.post("/services/web/rollback", json={"to_revision": 1})
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "volumes.0.source")


def test_stored_host_path_that_another_service_can_change_is_not_started(app_fixture: AppFixture) -> None:
    assert errors(app_fixture, "maker", "/srv/a:/a") == {}
    assert errors(app_fixture, "web", "/srv/b:/b") == {}
    store_volumes(app_fixture, "web", 1, "/srv/a/b:/b")
    app_fixture.engine.vanish("web-r1-1")

    def told() -> str:
        events = app_fixture.client.get("/events?service=web").json()["items"]
        return next((event["message"] for event in events if "cannot be started" in event["message"]), "")

    assert "volumes.0.source: /srv/a/b is in /srv/a" in eventually(told, "the replacement is refused")
    assert "web-r1-2" not in app_fixture.engine.containers


def test_data_directory_of_sluice_is_refused_within_a_root(app_fixture: AppFixture) -> None:
    for path in (app_fixture.data, app_fixture.data / "gateway", app_fixture.data.parent):
        assert f"overlaps {app_fixture.data}" in errors(app_fixture, "web", f"{path}:/data:ro")["volumes.0.source"]


def test_host_path_that_is_a_symbolic_link_fails_the_deployment_with_its_reason(app_fixture: AppFixture) -> None:
    app_fixture.engine.links["/srv/link"] = "/"
    answer = app_fixture.deploy(volumes=["/srv/link:/host:ro"])
    assert answer.status_code == 409
    deployment = answer.json()["deployment"]
    assert deployment["reason"] == "mount_refused" and "/srv/link" in deployment["message"]
    assert app_fixture.engine.containers == {}
