"""`make up` with a new image of Sluice, under load, with a held answer and an event stream open."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Iterator

import docker as engine
import httpx
import pytest

from app.version import VERSION
from services.loadtest.load_generator import LoadGenerator, Workload
from tests.support.docker_cli import docker
from tests.support.docker_fixture import build
from tests.support.shell import Shell

pytestmark = [pytest.mark.docker, pytest.mark.anyio]


@pytest.fixture
def newer(shell: Shell) -> Iterator[str]:
    """Build another image on Sluice's and return its tag."""
    client = engine.APIClient(version="auto")
    tag = f"{shell.name}/sluice:next"
    build(client, f"FROM sluice:{VERSION}\nLABEL n=2\n", tag)
    yield tag
    shell.clean()
    client.remove_image(tag, force=True)
    client.close()


async def test_sluice_upgrade_under_load_loses_nothing_and_asks_waiting_clients_to_retry(shell: Shell, newer: str) -> None:
    await asyncio.to_thread(shell.up)
    reported = await asyncio.to_thread(shell.environment)
    first = shell.id_of(shell.name)
    gateway = shell.id_of(f"{shell.name}-gateway")
    volume = f"{shell.name}-orders"
    hello = {
        "service": "hello",
        "image": "hello:1",
        "replicas": 2,
        "healthcheck": {"path": "/healthz", "interval": 0.5},
        "volumes": [{"type": "volume", "source": volume, "target": "/data", "shared": True}],
    }
    slow = {"image": "hello:2", "environment": {"HELLO_SLOW_START": "8"}}
    bearer = {"Authorization": f"Bearer {reported['SLUICE_TOKEN']}"}

    async def executions() -> Counter[str]:
        words = ("run", "--rm", "--volume", f"{volume}:/data", "--entrypoint", "cat", "hello:1", "/data/ledger")
        return Counter((await asyncio.to_thread(docker, *words)).split())

    async with httpx.AsyncClient(base_url=reported["SLUICE_URL"], headers=bearer, timeout=90) as http:
        done = await http.post("/deployments", params={"wait": 60}, json=hello)
        assert done.status_code == 200, done.text
        workload = Workload(rate=80, slow_seconds=1)
        async with LoadGenerator(f"{reported['SLUICE_GATEWAY']}/hello", workload, executions=executions) as load:
            key = {"Idempotency-Key": "once"}
            held = asyncio.create_task(
                http.post("/deployments", params={"wait": 60}, json={"service": "hello", **slow}, headers=key)
            )
            stream = asyncio.create_task(_listen(http))
            await load.until(lambda request_log: len(request_log.entries) > 200)
            load.mark("replaced")
            shell.more["SLUICE_IMAGE"] = newer
            began = time.monotonic()
            await asyncio.to_thread(shell.up)
            took = time.monotonic() - began
            load.mark("after")
            answer = await held
            assert answer.status_code == 503 and answer.json()["code"] == "stopping", answer.text
            assert answer.headers["Retry-After"] == "1"
            assert (await stream)[-1] == "bye"
            again = await http.post("/deployments", params={"wait": 60}, json={"service": "hello", **slow}, headers=key)
            assert again.status_code == 200, again.text
            assert again.json()["id"] == 2, "the same deployment went on"
    assert load.request_log.failures == [], load.request_log.explain()
    assert load.request_log.twice == [] and load.request_log.unrecorded == []
    assert shell.id_of(shell.name) != first
    assert shell.id_of(f"{shell.name}-gateway") == gateway
    print(json.dumps({"up again, seconds": round(took, 2), **load.request_log.summary().as_dict()}))


async def _listen(http: httpx.AsyncClient) -> list[str]:
    """Return the names of the events received until the stream ends by itself."""
    names = []
    async with http.stream("GET", "/events", headers={"Accept": "text/event-stream"}) as answer:
        async for line in answer.aiter_lines():
            if line.startswith("event: "):
                names.append(line.removeprefix("event: "))
    return names
