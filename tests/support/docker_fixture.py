"""A Sluice's part of the real engine for one test: its own name, network, image and addresses."""

from __future__ import annotations

import io
import secrets
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from ipaddress import IPv4Network
from typing import Any

import docker
from docker.errors import APIError

from services.engine.docker.codec import NAME
from services.engine.docker.subnets import free_subnets, host_routes
from services.engine.port import InstanceSpec
from tests.support.instance_specs import make_instance_spec

BASE = "debian:trixie-slim"
IMAGE = "sluice-test/shell:1"
_DOCKERFILE = f"""
FROM {BASE}
LABEL sluice.test=engine
EXPOSE 8000
EXPOSE 9000/udp
VOLUME /scratch
HEALTHCHECK --interval=3s --timeout=2s --start-period=4s --retries=5 CMD test -f /tmp/healthy
CMD ["sleep", "infinity"]
"""


class DockerFixture:
    """Network and containers of one test.

    `name`: the Sluice's name, and its network's. `clear` removes everything that has the name as label.
    """

    def __init__(self) -> None:
        self.client: Any = docker.APIClient(version="auto", timeout=60)
        self.name = f"sluice-test-{secrets.token_hex(4)}"
        self.image_id = _image(self.client)
        self.subnet = _network(self.client, self.name)
        self._hosts = self.subnet.hosts()
        next(self._hosts)

    def address(self) -> str:
        return str(next(self._hosts))

    def spec(self, id: str, **fields: Any) -> InstanceSpec:
        """Return the spec of an instance of the test image; if `script` is given, it runs that shell script."""
        script = fields.pop("script", None)
        given: dict[str, Any] = {
            "image_id": self.image_id,
            "address": fields.pop("address", None) or self.address(),
            "entrypoint": ["sh", "-c", script] if script else None,
        }
        return make_instance_spec(id, **{**given, **fields})

    def inspect(self, id: str) -> dict[str, Any]:
        found: dict[str, Any] = self.client.inspect_container(f"{self.name}-{id}")
        return found

    def execute(self, id: str, *command: str) -> str:
        created = self.client.exec_create(f"{self.name}-{id}", list(command))
        output: bytes = self.client.exec_start(created["Id"])
        return output.decode()

    def clear(self) -> None:
        for container in self.client.containers(all=True, filters={"label": f"{NAME}={self.name}"}):
            with suppress(APIError):
                self.client.remove_container(container["Id"], v=True, force=True)
        for network in self.client.networks(filters={"label": f"{NAME}={self.name}"}):
            with suppress(APIError):
                self.client.remove_network(network["Id"])
        self.client.close()


@contextmanager
def open_docker_fixture() -> Iterator[DockerFixture]:
    fixture = DockerFixture()
    try:
        yield fixture
    finally:
        fixture.clear()


def build(client: Any, dockerfile: str, tag: str) -> str:
    """Build an image with the engine's own builder, and return its id."""
    context = io.BytesIO()
    with tarfile.open(fileobj=context, mode="w") as tar:
        entry = tarfile.TarInfo("Dockerfile")
        entry.size = len(dockerfile.encode())
        tar.addfile(entry, io.BytesIO(dockerfile.encode()))
    context.seek(0)
    reported = list(client.build(fileobj=context, custom_context=True, tag=tag, rm=True, forcerm=True, decode=True))
    errors = [line["error"] for line in reported if "error" in line]
    assert not errors, errors
    return str(client.inspect_image(tag)["Id"])


def _image(client: Any) -> str:
    with suppress(APIError):
        return str(client.inspect_image(IMAGE)["Id"])
    return build(client, _DOCKERFILE, IMAGE)


def _network(client: Any, name: str) -> Any:
    taken = [pool["Subnet"] for network in client.networks() for pool in network["IPAM"]["Config"] or []]
    for subnet in free_subnets([*map(IPv4Network, taken), *host_routes()], 16):
        pool = docker.types.IPAMPool(subnet=str(subnet), gateway=str(next(subnet.hosts())))
        with suppress(APIError):
            client.create_network(
                name, driver="bridge", ipam=docker.types.IPAMConfig(pool_configs=[pool]), labels={NAME: name}
            )
            return subnet
    raise AssertionError("no free subnet")
