"""Every container field of the spec reaches the hash of an instance and the engine's configuration of its container."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import pytest

from services.engine.docker.engine import DockerEngine
from services.rollouts.reconciler.instance_spec import instance_spec
from services.rollouts.requests.admission import AdmissionRules
from services.rollouts.state.spec_hash import instance_hash
from services.spec import ContainerFields, Healthcheck, ServiceSpec
from services.store.tables import Instance, Revision

pytestmark = pytest.mark.anyio

T = TypeVar("T")
EXAMPLES: dict[str, Any] = {
    "environment": {"A": "1"},
    "command": ["serve"],
    "entrypoint": ["/bin/serve"],
    "working_dir": "/srv",
    "user": "1000",
    "resources": {"memory": "64m"},
    "volumes": ["data:/data"],
    "networks": ["backend"],
    "labels": {"team": "shop"},
    "logging": {"driver": "local"},
    "links": ["api"],
    "host_port": "auto",
    "stop_signal": "SIGINT",
    "init": True,
}
"""Each container field with a value that is not its default."""


class RecordingClient:
    """Docker client that records the requests which create a container and connect it to networks."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, Any]] = []

    def inspect_image(self, image: str) -> dict[str, Any]:
        return {"Id": image, "Config": {}}

    def inspect_volume(self, name: str) -> dict[str, Any]:
        return {"Name": name}

    def inspect_network(self, name: str) -> dict[str, Any]:
        return {"Name": name, "Driver": "bridge", "Containers": {}}

    def inspect_container(self, container: str) -> dict[str, Any]:
        _, body = self.requests[0]
        return {
            "Id": container,
            "Name": "/sluice-web-r1-1",
            "Config": {"Labels": body["Labels"]},
            "State": {"Status": "running", "StartedAt": "2026-11-24T10:00:00Z", "ExitCode": 0},
            "HostConfig": {"RestartPolicy": {"Name": "no"}},
            "NetworkSettings": {"Networks": {}},
        }

    def create_container_from_config(self, body: dict[str, Any], name: str) -> dict[str, str]:
        self.requests.append(("create", body))
        return {"Id": "c1"}

    def connect_container_to_network(self, container: str, network: str) -> None:
        self.requests.append(("connect", network))

    def start(self, container: str) -> None:
        return None


class RecordingClients:
    """Pool with one recording client."""

    def __init__(self) -> None:
        self.client = RecordingClient()

    async def call(self, work: Callable[[Any], T]) -> T:
        return work(self.client)


async def requests_for(**fields: Any) -> list[tuple[str, Any]]:
    """Return the engine requests that start an instance of a service with these spec fields."""
    effective = ServiceSpec.model_validate({"image": "web:1", **fields}).model_dump(mode="json")
    revision = Revision(
        service="web", number=1, image="web:1", image_id="sha256:1", hash="a1b2c3", deployment=1, created_at=0,
        effective=effective, healthcheck={"path": "/up"},
    )  # fmt: skip
    row = Instance(
        id="web-r1-1", service="web", revision=1, deployment=1, slot=1, hash="a1b2c3", address="10.203.0.5", port=8000,
        host_port=30_000 if effective["host_port"] else None, created_at=0,
    )  # fmt: skip
    engine = DockerEngine("sluice", "sluice", "sluice:1")
    clients: Any = RecordingClients()
    engine.clients = clients
    await engine.start(instance_spec(row, revision, AdmissionRules(), "10.203.0.1"))
    requests: list[tuple[str, Any]] = clients.client.requests
    return requests


def hash_of(**fields: Any) -> str:
    spec = ServiceSpec.model_validate({"image": "web:1", **fields})
    return instance_hash("sha256:1", 8000, Healthcheck(path="/up"), spec)


def test_every_container_field_has_an_example_that_is_not_its_default() -> None:
    assert set(EXAMPLES) == set(ContainerFields.model_fields)
    for name, example in EXAMPLES.items():
        assert getattr(ContainerFields(**{name: example}), name) != getattr(ContainerFields(), name), name


@pytest.mark.parametrize("name", ContainerFields.model_fields)
def test_container_field_changes_the_hash(name: str) -> None:
    assert hash_of(**{name: EXAMPLES[name]}) != hash_of()


@pytest.mark.parametrize("name", ContainerFields.model_fields)
async def test_container_field_changes_the_requests_to_the_engine(name: str) -> None:
    assert await requests_for(**{name: EXAMPLES[name]}) != await requests_for()
