"""The doctor on a real engine and a real gateway: a firewall that refuses, a file and a worker changed by hand."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from bench.deployments import deployed
from tests.support.docker_cli import docker, gateway, hello
from tests.support.sluice_process import SluiceProcess

pytestmark = [pytest.mark.anyio, pytest.mark.docker]


@pytest.fixture
async def http(tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    with SluiceProcess(tmp_path, SLUICE_GATEWAY_IMAGE=gateway()) as sluice:
        async with sluice.client() as client:
            client.headers["X-Name"] = sluice.name
            client.headers["X-Data"] = str(sluice.data)
            yield client


@contextmanager
def refused(subnet: str) -> Iterator[None]:
    """As ufw does for whatever has not been allowed."""
    rule = ("INPUT", "-s", subnet, "-j", "DROP")
    subprocess.run(["iptables", "-I", *rule], check=True)
    try:
        yield
    finally:
        subprocess.run(["iptables", "-D", *rule], check=True)


async def unwell(http: httpx.AsyncClient) -> dict[str, Any]:
    """The clock of this machine aside."""
    answer = await http.get("/doctor", timeout=30)
    assert answer.status_code == 200
    return {each["part"]: each for each in answer.json()["findings"] if each["status"] != "ok" and each["part"] != "clock"}


async def test_all_is_well_and_nothing_is_left_behind(http: httpx.AsyncClient) -> None:
    assert await unwell(http) == {}
    name = http.headers["X-Name"]
    assert docker("ps", "--all", "--filter", f"label=sluice.name={name}", "--format", "{{.Names}}") == f"{name}-gateway"


@pytest.mark.skipif(shutil.which("iptables") is None or os.geteuid() != 0, reason="the firewall is root's")
async def test_a_firewall_that_refuses_the_bridge_is_found_out_by_trying(http: httpx.AsyncClient) -> None:
    subnet = docker("network", "inspect", http.headers["X-Name"], "--format", "{{(index .IPAM.Config 0).Subnet}}")
    with refused(subnet):
        found = await unwell(http)
    assert list(found) == ["firewall"]
    assert found["firewall"]["status"] == "wrong" and f"ufw allow from {subnet}" in found["firewall"]["advice"]


@contextmanager
def disguised(bridge: str) -> Iterator[None]:
    """Connections of Docker's default network get the bridge's own address, as a MASQUERADE that is too wide gives them."""
    outside = docker("network", "inspect", "bridge", "--format", "{{(index .IPAM.Config 0).Subnet}}")
    rule = ("INPUT", "-s", outside, "-d", bridge, "-j", "SNAT", "--to-source", bridge)
    subprocess.run(["iptables", "-t", "nat", "-I", *rule], check=True)
    try:
        yield
    finally:
        subprocess.run(["iptables", "-t", "nat", "-D", *rule], check=True)


@pytest.mark.skipif(shutil.which("iptables") is None or os.geteuid() != 0, reason="the firewall is root's")
async def test_an_internal_port_answers_no_other_network_and_one_that_does_is_found_out(http: httpx.AsyncClient) -> None:
    await deployed(http, {"service": "hello", "image": hello("1"), "healthcheck": {"path": "/healthz"}, "replicas": 1})
    url = urlsplit((await http.get("/services/hello")).json()["internal_url"])
    assert url.hostname is not None
    assert (await http.get(f"{url.geturl()}/", headers={"Authorization": ""})).status_code == 200, "the host itself may"
    assert await unwell(http) == {}
    with disguised(url.hostname):
        found = await unwell(http)
    assert list(found) == ["bridge's ports"]
    assert f"{url.netloc} answers" in found["bridge's ports"]["detail"]


async def test_files_that_somebody_has_changed_are_found_and_not_read_by_the_next_gateway(http: httpx.AsyncClient) -> None:
    routes = Path(http.headers["X-Data"]) / "gateway" / "routes.map"
    with routes.open("a") as file:
        file.write("*/stolen/ nobody\n")
    found = await unwell(http)
    assert "routes.map was changed" in found["gateway's file"]["detail"]
    assert (await http.post("/gateway/upgrade", json={"force": True})).status_code == 200
    assert "stolen" not in routes.read_text()
    assert await unwell(http) == {}
