"""An instance whose network is disconnected closes no connection; the gateway notices within seconds.

Without Sluice, a request that was sent on a kept connection and never arrived waits for `request_timeout`. The service
here keeps none.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.loadtest.load_generator import LoadGenerator, Workload
from services.routing.port import Endpoint
from services.spec import Healthcheck
from tests.support.docker_cli import docker, hello
from tests.support.gateway_fixture import PUBLIC, GatewayFixture, service

pytestmark = [pytest.mark.anyio, pytest.mark.docker]
NETWORK = f"sluice-test-lost-{os.getpid()}"
SUBNET = f"10.231.{os.getpid() % 250}"
MIX = Workload(rate=60, slow=0.2, slow_seconds=1.0)


@pytest.fixture
async def instances(tmp_path: Path) -> AsyncIterator[list[Endpoint]]:
    """Run three instances in containers on a network of their own, with one ledger."""
    image = hello("1")
    endpoints = [
        Endpoint(f"web-r1-{n}", "web", f"{SUBNET}.{10 + n}", 8000, "c1@t1", Healthcheck(path="/healthz")) for n in (1, 2, 3)
    ]
    os.chmod(tmp_path, 0o777)  # noqa: S103 - the instances are not root
    docker("network", "create", "--subnet", f"{SUBNET}.0/24", NETWORK)
    try:
        for endpoint in endpoints:
            docker(
                *("run", "--detach", "--name", f"{NETWORK}-{endpoint.id}", "--network", NETWORK, "--ip", endpoint.address),
                *("--volume", f"{tmp_path}:/ledger", "--env", "HELLO_LEDGER=/ledger/orders", image),
            )
        yield endpoints
    finally:
        for endpoint in endpoints:
            docker("rm", "--force", f"{NETWORK}-{endpoint.id}")
        docker("network", "rm", NETWORK)


async def test_disconnected_instance_loses_no_get_and_runs_no_post_twice(
    gateway_fixture: GatewayFixture, instances: list[Endpoint], tmp_path: Path
) -> None:
    async def executions() -> Counter[str]:
        return Counter((tmp_path / "orders").read_text().split())

    await gateway_fixture.gateway.publish(service(upstream_keepalive=False))
    for endpoint in instances:
        await gateway_fixture.gateway.admit(endpoint)
    url = f"http://127.0.0.1:{PUBLIC}/web"
    async with LoadGenerator(url, MIX, executions=executions) as load:
        await load.until(lambda log: len(log.versions()) > 0 and len(log.entries) > 150)
        docker("network", "disconnect", NETWORK, f"{NETWORK}-{instances[0].id}")
        sent = len(load.request_log.entries)
        await load.until(lambda log: len(log.entries) > sent + 300)
    assert not [entry for entry in load.request_log.failures if entry.kind != "POST"], load.request_log.explain()
    assert not load.request_log.twice
    retried = [entry for entry in load.request_log.entries if entry.kind == "SLOW" and entry.added > 1]
    assert retried
