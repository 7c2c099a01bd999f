"""The doctor on real parts: a blocking firewall, an exposed port, files changed by hand."""

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
    """Drop the subnet's packets to this host, as ufw does unless they are allowed."""
    rule = ("INPUT", "-s", subnet, "-j", "DROP")
    subprocess.run(["iptables", "-I", *rule], check=True)
    try:
        yield
    finally:
        subprocess.run(["iptables", "-D", *rule], check=True)


async def unwell(http: httpx.AsyncClient) -> dict[str, Any]:
    """Return the findings that are not ok, except this machine's clock."""
    answer = await http.get("/doctor", timeout=30)
    assert answer.status_code == 200
    return {each["part"]: each for each in answer.json()["findings"] if each["status"] != "ok" and each["part"] != "clock"}


async def test_doctor_finds_nothing_and_leaves_no_container(http: httpx.AsyncClient) -> None:
    assert await unwell(http) == {}
    name = http.headers["X-Name"]
    assert docker("ps", "--all", "--filter", f"label=sluice.name={name}", "--format", "{{.Names}}") == f"{name}-gateway"


@pytest.mark.skipif(shutil.which("iptables") is None or os.geteuid() != 0, reason="the firewall is root's")
async def test_doctor_detects_a_firewall_that_blocks_the_bridge(http: httpx.AsyncClient) -> None:
    subnet = docker("network", "inspect", http.headers["X-Name"], "--format", "{{(index .IPAM.Config 0).Subnet}}")
    with refused(subnet):
        found = await unwell(http)
    assert list(found) == ["firewall"]
    assert found["firewall"]["status"] == "wrong" and f"ufw allow from {subnet}" in found["firewall"]["advice"]


@contextmanager
def disguised(bridge: str) -> Iterator[None]:
    """Give connections of Docker's default network the bridge's address.

    A MASQUERADE rule that is too wide does the same.
    """
    outside = docker("network", "inspect", "bridge", "--format", "{{(index .IPAM.Config 0).Subnet}}")
    rule = ("INPUT", "-s", outside, "-d", bridge, "-j", "SNAT", "--to-source", bridge)
    subprocess.run(["iptables", "-t", "nat", "-I", *rule], check=True)
    try:
        yield
    finally:
        subprocess.run(["iptables", "-t", "nat", "-D", *rule], check=True)


@pytest.mark.skipif(shutil.which("iptables") is None or os.geteuid() != 0, reason="the firewall is root's")
async def test_doctor_detects_an_internal_port_that_answers_another_network(http: httpx.AsyncClient) -> None:
    await deployed(http, {"service": "hello", "image": hello("1"), "healthcheck": {"path": "/healthz"}, "replicas": 1})
    url = urlsplit((await http.get("/services/hello")).json()["internal_url"])
    assert url.hostname is not None
    assert (await http.get(f"{url.geturl()}/", headers={"Authorization": ""})).status_code == 200, "the host itself may"
    assert await unwell(http) == {}
    with disguised(url.hostname):
        found = await unwell(http)
    assert list(found) == ["bridge's ports"]
    assert f"{url.netloc} answers" in found["bridge's ports"]["detail"]


async def test_changed_gateway_files_are_detected_and_rewritten_by_an_upgrade(http: httpx.AsyncClient) -> None:
    routes = Path(http.headers["X-Data"]) / "gateway" / "routes.map"
    with routes.open("a") as file:
        file.write("*/stolen/ missing\n")
    found = await unwell(http)
    assert "routes.map was changed" in found["gateway's file"]["detail"]
    assert (await http.post("/gateway/upgrade", json={"force": True})).status_code == 200
    assert "stolen" not in routes.read_text()
    assert await unwell(http) == {}
