"""What the API says of images: a registry that refuses or is away, and data that an image keeps nowhere."""

from __future__ import annotations

from typing import Any

import pytest

from services.engine.port import EngineError
from tests.support.app_fixture import READY, AppFixture

pytestmark = pytest.mark.slow


def codes(document: dict[str, Any]) -> list[str]:
    return [warning["code"] for warning in document["warnings"]]


def test_registry_that_refuses_fails_the_deployment_with_its_own_words(fixture: AppFixture) -> None:
    fixture.deploy()
    words = "toomanyrequests: You have reached your pull rate limit"
    fixture.engine.fail_next("pull", EngineError(words, reason="image_pull_failed"))
    refused = fixture.client.post("/deployments?wait=20", json={"service": "web", "image": "web:1"})
    assert refused.status_code == 409
    deployment = refused.json()["deployment"]
    assert (deployment["status"], deployment["reason"]) == ("rolled_back", "image_pull_failed")
    assert words in deployment["message"]


def test_registry_that_is_away_leaves_a_warning_even_if_nothing_changes(fixture: AppFixture) -> None:
    fixture.deploy()
    fixture.engine.unreached = "dial tcp 192.0.2.1:443: i/o timeout"
    same = fixture.deploy().json()
    assert (same["status"], same["reason"]) == ("succeeded", "unchanged")
    changed = fixture.deploy(environment={"A": "1"}).json()
    assert changed["status"] == "succeeded"
    for deployment in (same, changed):
        assert "image_not_pulled" in codes(deployment)
        assert any("i/o timeout" in warning["message"] for warning in deployment["warnings"])
        events = fixture.client.get(f"/deployments/{deployment['id']}/events").json()["items"]
        assert any(each["type"] == "warning" and each["data"]["code"] == "image_not_pulled" for each in events)


def test_volume_of_the_image_that_no_mount_covers_is_a_warning(fixture: AppFixture) -> None:
    fixture.engine.add_image("db:1", volumes=("/data", "/cache"), pulled=False)
    mounts: list[Any] = ["data:/data/"]
    body: dict[str, Any] = {"service": "db", "image": "db:1", "healthcheck": READY, "volumes": mounts}
    preview = fixture.client.post("/deployments?dry_run=true", json=body).json()
    deployed = fixture.client.post("/deployments?wait=20", json=body).json()
    for document in (preview, deployed):
        (warning,) = [each for each in document["warnings"] if each["code"] == "volume_not_kept"]
        assert "/cache" in warning["message"] and "/data" not in warning["message"]
    body["volumes"] = [*mounts, {"type": "tmpfs", "target": "/cache"}]
    assert codes(fixture.client.post("/deployments?wait=20", json=body).json()) == []


def test_mount_above_a_volume_of_the_image_does_not_cover_it(fixture: AppFixture) -> None:
    """The engine mounts an anonymous volume over the directory below."""
    fixture.engine.add_image("db:1", volumes=("/var/lib/data",))
    deployed = fixture.deploy("db", "db:1", volumes=["all:/var/lib"]).json()
    assert "volume_not_kept" in codes(deployed)
