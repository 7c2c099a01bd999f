"""What the API says of images: a registry that refuses or is away, and data that an image keeps nowhere."""

from __future__ import annotations

from typing import Any

import pytest

from services.engine.port import EngineError
from tests.support.app_fixture import READY, AppFixture, eventually

pytestmark = pytest.mark.slow


def codes(document: dict[str, Any]) -> list[str]:
    return [warning["code"] for warning in document["warnings"]]


def test_registry_that_refuses_fails_the_deployment_with_its_own_words(app_fixture: AppFixture) -> None:
    app_fixture.deploy()
    words = "toomanyrequests: You have reached your pull rate limit"
    app_fixture.engine.fail_next("pull", EngineError(words, reason="image_pull_failed"))
    refused = app_fixture.client.post("/deployments?wait=20", json={"service": "web", "image": "web:1"})
    assert refused.status_code == 409
    deployment = refused.json()["deployment"]
    assert (deployment["status"], deployment["reason"]) == ("rolled_back", "image_pull_failed")
    assert words in deployment["message"]


def test_registry_that_is_away_leaves_a_warning_even_if_nothing_changes(app_fixture: AppFixture) -> None:
    app_fixture.deploy()
    app_fixture.engine.unreached = "dial tcp 192.0.2.1:443: i/o timeout"
    same = app_fixture.deploy().json()
    assert (same["status"], same["reason"]) == ("succeeded", "unchanged")
    changed = app_fixture.deploy(environment={"A": "1"}).json()
    assert changed["status"] == "succeeded"
    for deployment in (same, changed):
        assert "image_not_pulled" in codes(deployment)
        assert any("i/o timeout" in warning["message"] for warning in deployment["warnings"])
        events = app_fixture.client.get(f"/deployments/{deployment['id']}/events").json()["items"]
        assert any(each["type"] == "warning" and each["data"]["code"] == "image_not_pulled" for each in events)


def test_volume_of_the_image_that_no_mount_covers_is_a_warning(app_fixture: AppFixture) -> None:
    app_fixture.engine.add_image("db:1", volumes=("/data", "/cache"), pulled=False)
    mounts: list[Any] = ["data:/data/"]
    body: dict[str, Any] = {"service": "db", "image": "db:1", "healthcheck": READY, "volumes": mounts}
    preview = app_fixture.client.post("/deployments?dry_run=true", json=body).json()
    deployed = app_fixture.client.post("/deployments?wait=20", json=body).json()
    for document in (preview, deployed):
        (warning,) = [each for each in document["warnings"] if each["code"] == "volume_not_kept"]
        assert "/cache" in warning["message"] and "/data" not in warning["message"]
    body["volumes"] = [*mounts, {"type": "tmpfs", "target": "/cache"}]
    assert codes(app_fixture.client.post("/deployments?wait=20", json=body).json()) == []


def test_mount_above_a_volume_of_the_image_does_not_cover_it(app_fixture: AppFixture) -> None:
    """The engine mounts an anonymous volume over the directory below."""
    app_fixture.engine.add_image("db:1", volumes=("/var/lib/data",))
    deployed = app_fixture.deploy("db", "db:1", volumes=["all:/var/lib"]).json()
    assert "volume_not_kept" in codes(deployed)


def lose(app_fixture: AppFixture, revision: int) -> str:
    """Let the engine lose the image of a revision of the service, and return its digest in the registry."""
    image = app_fixture.engine.images[f"web:{revision}"]
    app_fixture.engine.lose_image(image.id)
    return image.digest or ""


@pytest.mark.parametrize(
    ("path", "body"), [("rollback", {}), ("restart", {}), ("scale", {"replicas": 2})], ids=["rollback", "restart", "scale"]
)
def test_image_that_the_engine_lost_is_pulled_again_by_its_digest(
    app_fixture: AppFixture, path: str, body: dict[str, Any]
) -> None:
    app_fixture.deploy()
    app_fixture.deploy(image="web:2")
    digest = lose(app_fixture, 1 if path == "rollback" else 2)
    preview = app_fixture.client.post(f"/services/web/{path}?dry_run=true", json=body).json()
    assert codes(preview) == ["image_not_here"] and digest in preview["warnings"][0]["message"]
    assert preview["steps"] and app_fixture.engine.pulls[-1][0] != digest
    done = app_fixture.client.post(f"/services/web/{path}?wait=20", json=body)
    assert done.json()["status"] == "succeeded", done.text
    assert app_fixture.engine.pulls[-1] == (digest, None), "with the operator's credentials"


def test_replacement_pulls_the_image_again_if_the_engine_lost_it(app_fixture: AppFixture) -> None:
    app_fixture.deploy()
    digest = lose(app_fixture, 1)
    app_fixture.engine.vanish("web-r1-1")
    eventually(lambda: "web-r1-2" in app_fixture.engine.running, "another instance runs")
    assert app_fixture.engine.pulls[-1] == (digest, None)


@pytest.mark.parametrize("way", ["built here", "refused", "another image"])
@pytest.mark.parametrize("path", ["rollback", "restart"])
def test_image_that_is_gone_fails_before_anything_starts_and_the_dry_run_says_so(
    app_fixture: AppFixture, way: str, path: str
) -> None:
    for number in (1, 2):
        app_fixture.engine.add_image(f"web:{number}", pulled=way != "built here")
        app_fixture.deploy(image=f"web:{number}", strategy="recreate")
    digest = lose(app_fixture, 1 if path == "rollback" else 2)
    if way == "refused":
        app_fixture.engine.fail_next(
            "pull", EngineError("unauthorized: authentication required", reason="image_pull_failed")
        )
    elif way == "another image":
        app_fixture.engine.registry[digest] = app_fixture.engine.add_image("web:other")
    before = app_fixture.engine.running
    preview = app_fixture.client.post(f"/services/web/{path}?dry_run=true").json()
    if way == "built here":
        assert codes(preview) == ["image_gone"] and preview["steps"] == []
    refused = app_fixture.client.post(f"/services/web/{path}?wait=20")
    assert refused.status_code == 409
    deployment = refused.json()["deployment"]
    assert (deployment["status"], deployment["reason"]) == ("rolled_back", "image_gone")
    assert ("web:1" if path == "rollback" else "web:2") in deployment["message"]
    assert {"built here": "docker load", "refused": "authentication required", "another image": "another image there"}[
        way
    ] in deployment["message"]
    assert app_fixture.engine.running == before


def test_scaling_in_needs_no_image(app_fixture: AppFixture) -> None:
    app_fixture.engine.add_image("web:1", pulled=False)
    app_fixture.deploy(replicas=2)
    lose(app_fixture, 1)
    assert app_fixture.client.post("/services/web/scale?wait=20", json={"replicas": 1}).json()["status"] == "succeeded"


def test_failed_deployment_of_a_stopped_service_does_not_say_that_it_serves(app_fixture: AppFixture) -> None:
    app_fixture.engine.add_image("web:1", pulled=False)
    app_fixture.deploy(replicas=0)
    lose(app_fixture, 1)
    failed = app_fixture.client.post("/services/web/scale?wait=20", json={"replicas": 2}).json()["deployment"]
    assert failed["reason"] == "image_gone" and failed["message"].endswith("revision 1 stays, with 0 instances")


def test_restart_warns_of_data_that_it_loses(app_fixture: AppFixture) -> None:
    app_fixture.engine.add_image("web:1", volumes=("/data",))
    app_fixture.deploy()
    assert codes(app_fixture.client.post("/services/web/restart?dry_run=true").json()) == ["volume_not_kept"]
    assert codes(app_fixture.client.post("/services/web/restart?wait=20").json()) == ["volume_not_kept"]
