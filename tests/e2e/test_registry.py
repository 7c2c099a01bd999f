"""The Eureka registry on real networks: which clients may register from which place.

Callers: instances, other containers of their network, another network, the host.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.eureka_payloads import said
from tests.support.service_fixture import Images, Json, ServiceFixture
from tests.support.sluice_process import SluiceProcess, free_port

pytestmark = [pytest.mark.docker, pytest.mark.anyio]
ASK = """
import sys, urllib.request, urllib.error
method, url, body = sys.argv[1:]
request = urllib.request.Request(url, body.encode() or None, {"Content-Type": "application/json"}, method=method)
try:
    print(urllib.request.urlopen(request, timeout=10).status)
except urllib.error.HTTPError as error:
    print(error.code)
"""


@pytest.fixture
def opened(images: Images, tmp_path: Path) -> Iterator[SluiceProcess]:
    settings = {"SLUICE_EUREKA_PORT": str(free_port()), "SLUICE_EUREKA_HOST": "127.0.0.1"}
    with SluiceProcess(tmp_path, SLUICE_GATEWAY_IMAGE=images.gateway, **settings) as sluice:
        yield sluice


@pytest.fixture
async def isolated_service(opened: SluiceProcess, images: Images) -> AsyncIterator[ServiceFixture]:
    async with opened.client() as http:
        yield ServiceFixture(opened, http, images)


class ClientLocations:
    """The clients: a command that runs Python at each place, and the registry's URL from there."""

    def __init__(self, service_fixture: ServiceFixture, bridge: str) -> None:
        self.fixture = service_fixture
        port = service_fixture.sluice.settings["SLUICE_EUREKA_PORT"]
        self.bridge, self.loopback = f"http://{bridge}:{port}/eureka/", f"http://127.0.0.1:{port}/eureka/"
        self.commands: dict[str, list[str]] = {}

    async def from_container(self, where: str, method: str, path: str, body: Json | None = None) -> int:
        words = [method, self.bridge + path, json.dumps(body) if body else ""]
        return int(await self.fixture.docker(*self.commands[where], "python", "-c", ASK, *words))

    async def from_host(self, url: str, method: str, path: str, body: Json | None = None) -> int:
        async with httpx.AsyncClient() as http:
            return (await http.request(method, url + path, json=body)).status_code


def registration(app: str, id: str) -> Json:
    return said(id, app.upper(), vipAddress=app)


async def test_registry_accepts_changes_of_a_service_only_from_its_own_instances(isolated_service: ServiceFixture) -> None:
    web, thief = isolated_service.service, f"{isolated_service.service}-thief"
    for service in (web, thief):
        await isolated_service.deploy(isolated_service.spec(service=service, replicas=1))
    config = "{{(index .IPAM.Config 0).Gateway}}"
    places = ClientLocations(
        isolated_service,
        await isolated_service.docker("network", "inspect", isolated_service.sluice.name, "--format", config),
    )
    other = f"{isolated_service.sluice.name}-other"
    await isolated_service.docker("network", "create", other)
    try:
        for where, network in (("neighbour", isolated_service.sluice.name), ("other", other)):
            name = f"{isolated_service.sluice.name}-{where}"
            await isolated_service.docker("run", "--detach", "--rm", "--name", name, "--network", network,
                             "--entrypoint", "sleep",
                             isolated_service.images.one, "600")  # fmt: skip
            places.commands[where] = ["exec", name]
        for service in (web, thief):
            [container] = await isolated_service.containers(service)
            places.commands[service] = ["exec", container["Id"]]

        assert await places.from_container(web, "POST", f"apps/{web}", registration(web, "a")) == 204
        assert await places.from_container(web, "PUT", f"apps/{web}/a") == 200
        for where in (thief, "neighbour", "other"):
            assert await places.from_container(where, "POST", f"apps/{web}", registration(web, "b")) == 403
            for change in (f"apps/{web}/a", f"apps/{web}/a/status?value=OUT_OF_SERVICE"):
                assert await places.from_container(where, "PUT", change) == 403
            assert await places.from_container(where, "DELETE", f"apps/{web}/a") == 403
        for url in (places.bridge, places.loopback):
            assert await places.from_host(url, "GET", "apps/") == 200
            assert await places.from_host(url, "POST", f"apps/{web}", registration(web, "c")) == 403
            assert await places.from_host(url, "DELETE", f"apps/{web}/a") == 403

        reads = {where: await places.from_container(where, "GET", "apps/") for where in places.commands}
        assert reads == {web: 200, thief: 200, "neighbour": 200, "other": 403}
        for where in ("neighbour", thief):
            app = f"legacy-{where}"
            assert await places.from_container(where, "POST", f"apps/{app}", registration(app, "x")) == 204
            assert await places.from_host(places.loopback, "PUT", f"apps/{app}/x") == 403
            assert await places.from_container(where, "DELETE", f"apps/{app}/x") == 200
        assert await places.from_host(places.loopback, "POST", "apps/legacy", registration("legacy", "y")) == 204
        assert await places.from_host(places.loopback, "DELETE", "apps/legacy/y") == 200
        assert await places.from_container(web, "DELETE", f"apps/{web}/a") == 200
    finally:
        for where in ("neighbour", "other"):
            await isolated_service.docker("rm", "--force", f"{isolated_service.sluice.name}-{where}")
        await isolated_service.docker("network", "rm", other)
