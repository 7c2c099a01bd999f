"""A spec reaches neither the gateway's sockets nor other places of the host (real engine)."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.service_fixture import Images, Json, ServiceFixture
from tests.support.sluice_process import SluiceProcess

pytestmark = [pytest.mark.anyio, pytest.mark.docker]


@pytest.fixture
async def isolated_service(images: Images, tmp_path: Path) -> AsyncIterator[ServiceFixture]:
    (tmp_path / "root" / "shared").mkdir(parents=True)
    (tmp_path / "root" / "shared").chmod(0o777)
    settings = {"SLUICE_GATEWAY_IMAGE": images.gateway, "SLUICE_HOST_ROOTS": str(tmp_path / "root")}
    with SluiceProcess(tmp_path, **settings) as sluice:
        async with sluice.client() as http:
            yield ServiceFixture(sluice, http, images)


def mount(path: Path, **more: Any) -> Json:
    return {"type": "bind", "source": str(path), "target": "/data", **more}


async def refusal(isolated_service: ServiceFixture, service: str, **fields: Any) -> tuple[int, str]:
    answer = await isolated_service.http.post(
        "/deployments", json=isolated_service.spec(service=service, replicas=1, **fields)
    )
    return answer.status_code, answer.json()["errors"][0]["field"] if answer.status_code == 422 else ""


def syslog(isolated_service: ServiceFixture) -> Json:
    socket = isolated_service.sluice.data / "gateway" / "admin.sock"
    assert socket.is_socket()
    return {"driver": "syslog", "options": {"syslog-address": f"unix://{socket}"}}


async def test_symlink_made_by_an_instance_gives_no_service_access_to_the_host(
    isolated_service: ServiceFixture, tmp_path: Path
) -> None:
    shared = tmp_path / "root" / "shared"
    await isolated_service.deploy(isolated_service.spec(service="maker", replicas=1, volumes=[mount(shared)]))
    [maker] = await isolated_service.containers("maker")
    for name, target in {"etc": "/etc", "up": "../../data"}.items():
        await isolated_service.docker("exec", maker["Id"], "ln", "-s", target, f"/data/{name}")
        assert (shared / name).is_symlink()
        assert await refusal(isolated_service, "thief", volumes=[mount(shared / name, read_only=True)]) == (
            422,
            "volumes.0.source",
        )
    (await isolated_service.http.delete("/services/maker", params={"wait": 60})).raise_for_status()
    for name in ("etc", "up", "etc/ssl"):
        body = isolated_service.spec(service="thief", replicas=1, volumes=[mount(shared / name)])
        assert (await isolated_service.deploy(body, expect="failed"))["reason"] == "mount_refused"
    assert await refusal(isolated_service, "thief", volumes=[mount(isolated_service.sluice.data / "gateway")]) == (
        422,
        "volumes.0.source",
    )
    assert await isolated_service.containers("thief") == []
    left = await isolated_service.docker(
        "ps",
        "--all",
        "--quiet",
        "--filter",
        f"label=sluice.name={isolated_service.sluice.name}",
        "--filter",
        "label=sluice.role=resolver",
    )
    assert left == ""


async def test_log_driver_cannot_write_to_the_gateways_socket(isolated_service: ServiceFixture) -> None:
    assert await refusal(isolated_service, isolated_service.service, logging=syslog(isolated_service)) == (
        422,
        "logging.driver",
    )
    await isolated_service.deploy(isolated_service.spec(replicas=1))
    await isolated_service.update(environment={"A": "1"})
    isolated_service.sluice.stop()
    with sqlite3.connect(isolated_service.sluice.data / "sluice.db") as store:
        for service, number, text in store.execute("SELECT service, number, effective FROM revision").fetchall():
            effective = json.dumps({**json.loads(text), "logging": syslog(isolated_service)})
            store.execute("UPDATE revision SET effective = ? WHERE (service, number) = (?, ?)", (effective, service, number))
    store.close()
    isolated_service.sluice.start()
    for verb, body in (("rollback", {"to_revision": 1}), ("restart", {}), ("scale", {"replicas": 2})):
        answer = await isolated_service.http.post(f"/services/{isolated_service.service}/{verb}", json=body)
        assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "logging.driver"), verb
    [present] = await isolated_service.containers()
    await isolated_service.docker("rm", "--force", present["Id"])

    async def told() -> str | None:
        found = await isolated_service.get("/events", service=isolated_service.service, limit=200)
        return next((each["message"] for each in found["items"] if "cannot be started" in each["message"]), None)

    assert "logging.driver" in await isolated_service.until(told)
    assert await isolated_service.containers() == []
