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
async def own(images: Images, tmp_path: Path) -> AsyncIterator[ServiceFixture]:
    (tmp_path / "root" / "shared").mkdir(parents=True)
    (tmp_path / "root" / "shared").chmod(0o777)
    settings = {"SLUICE_GATEWAY_IMAGE": images.gateway, "SLUICE_HOST_ROOTS": str(tmp_path / "root")}
    with SluiceProcess(tmp_path, **settings) as sluice:
        async with sluice.client() as http:
            yield ServiceFixture(sluice, http, images)


def mount(path: Path, **more: Any) -> Json:
    return {"type": "bind", "source": str(path), "target": "/data", **more}


async def refusal(own: ServiceFixture, service: str, **fields: Any) -> tuple[int, str]:
    answer = await own.http.post("/deployments", json=own.spec(service=service, replicas=1, **fields))
    return answer.status_code, answer.json()["errors"][0]["field"] if answer.status_code == 422 else ""


def syslog(own: ServiceFixture) -> Json:
    socket = own.sluice.data / "gateway" / "admin.sock"
    assert socket.is_socket()
    return {"driver": "syslog", "options": {"syslog-address": f"unix://{socket}"}}


async def test_symlink_made_by_an_instance_gives_no_service_access_to_the_host(own: ServiceFixture, tmp_path: Path) -> None:
    shared = tmp_path / "root" / "shared"
    await own.deploy(own.spec(service="maker", replicas=1, volumes=[mount(shared)]))
    [maker] = await own.containers("maker")
    for name, target in {"etc": "/etc", "up": "../../data"}.items():
        await own.docker("exec", maker["Id"], "ln", "-s", target, f"/data/{name}")
        assert (shared / name).is_symlink()
        assert await refusal(own, "thief", volumes=[mount(shared / name, read_only=True)]) == (422, "volumes.0.source")
    (await own.http.delete("/services/maker", params={"wait": 60})).raise_for_status()
    for name in ("etc", "up", "etc/ssl"):
        body = own.spec(service="thief", replicas=1, volumes=[mount(shared / name)])
        assert (await own.deploy(body, expect="failed"))["reason"] == "mount_refused"
    assert await refusal(own, "thief", volumes=[mount(own.sluice.data / "gateway")]) == (422, "volumes.0.source")
    assert await own.containers("thief") == []
    left = await own.docker(
        "ps",
        "--all",
        "--quiet",
        "--filter",
        f"label=sluice.name={own.sluice.name}",
        "--filter",
        "label=sluice.role=resolver",
    )
    assert left == ""


async def test_log_driver_cannot_write_to_the_gateways_socket(own: ServiceFixture) -> None:
    assert await refusal(own, own.service, logging=syslog(own)) == (422, "logging.driver")
    await own.deploy(own.spec(replicas=1))
    await own.update(environment={"A": "1"})
    own.sluice.stop()
    with sqlite3.connect(own.sluice.data / "sluice.db") as store:
        for service, number, text in store.execute("SELECT service, number, effective FROM revision").fetchall():
            effective = json.dumps({**json.loads(text), "logging": syslog(own)})
            store.execute("UPDATE revision SET effective = ? WHERE (service, number) = (?, ?)", (effective, service, number))
    store.close()
    own.sluice.start()
    for verb, body in (("rollback", {"to_revision": 1}), ("restart", {}), ("scale", {"replicas": 2})):
        answer = await own.http.post(f"/services/{own.service}/{verb}", json=body)
        assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "logging.driver"), verb
    [present] = await own.containers()
    await own.docker("rm", "--force", present["Id"])

    async def told() -> str | None:
        found = await own.get("/events", service=own.service, limit=200)
        return next((each["message"] for each in found["items"] if "cannot be started" in each["message"]), None)

    assert "logging.driver" in await own.until(told)
    assert await own.containers() == []
