"""Real clients, unchanged, against the running registry: in an instance and elsewhere.

They are py-eureka-client (XML), eureka-js-client (JSON, deltas) and hudl/fargo for Go (JSON and XML).
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from queue import Empty, Queue
from threading import Thread
from typing import Any

import httpx
import pytest
from py_eureka_client.eureka_client import EurekaClient  # type: ignore[import-untyped]

from tests.app.eureka.conftest import Running, running
from tests.support.app_fixture import eventually
from tests.support.eureka_payloads import said

JS, GO = Path(__file__).parent / "js", Path(__file__).parent / "go"
PATIENCE = 30.0
pytestmark = pytest.mark.slow


@pytest.fixture(scope="session")
def node_modules() -> None:
    """Install the client as locked; npm does nothing if it is installed."""
    if not (JS / "node_modules" / ".package-lock.json").exists():
        subprocess.run(["npm", "ci", "--no-audit", "--no-fund", "--silent"], cwd=JS, check=True)


@pytest.fixture(scope="session")
def go_binary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the client as locked by go.sum."""
    binary = tmp_path_factory.mktemp("go") / "client"
    subprocess.run(["go", "build", "-o", str(binary), "."], cwd=GO, check=True, stderr=subprocess.DEVNULL)
    return binary


class LineClient:
    """A client process that prints the instances it knows as a JSON line after every fetch."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self._lines: Queue[dict[str, Any]] = Queue()
        Thread(target=self._read, daemon=True).start()

    def sees(self, wanted: dict[str, str]) -> None:
        """Wait until the client knows exactly these instances (id → status)."""
        self.until(lambda line: line.get("web") == wanted, wanted)

    def until(self, said: Callable[[dict[str, Any]], bool], wanted: object) -> None:
        deadline, last = time.monotonic() + PATIENCE, None
        while time.monotonic() < deadline:
            try:
                last = self._lines.get(timeout=1)
            except Empty:
                continue
            if said(last):
                return
        raise AssertionError(f"never saw {wanted}; last: {last}")

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("{"):
                self._lines.put(json.loads(line))


@contextmanager
def line_client(*command: str) -> Iterator[LineClient]:
    with subprocess.Popen(command, cwd=JS, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            yield LineClient(process)
        finally:
            process.kill()


def js_client(eureka: Running, id: str) -> AbstractContextManager[LineClient]:
    return line_client("node", "client.js", str(eureka.port), id)


def py_client(eureka: Running, id: str) -> EurekaClient:
    """Return a client that sends no heartbeat during the test.

    The client's heartbeat thread does not end when the client is stopped.
    """
    return EurekaClient(
        eureka_server=eureka.url + "/", app_name="web", instance_id=id, instance_host=f"host-{id}", instance_ip="127.0.0.1",
        instance_port=9001, renewal_interval_in_secs=300, duration_in_secs=900,
    )  # fmt: skip


@pytest.fixture
def both(eureka: Running, node_modules: None) -> Iterator[tuple[Running, LineClient]]:
    with js_client(eureka, "js") as js:
        js.sees({"js": "UP"})
        yield eureka, js


def call(method: str, eureka: Running, path: str, expected: int = 200) -> None:
    answer = httpx.request(method, f"{eureka.url}/{path}")
    assert (answer.status_code, answer.content) == (expected, b"")


async def seen_by(client: EurekaClient) -> dict[str, str]:
    """Fetch the registry now and return the instances that py-eureka-client then knows."""
    await client._EurekaClient__pull_full_registry()  # The client's own timer runs every 30 s.
    found = client.applications.get_application("web").instances
    return {instance.instanceId: instance.status for instance in found}


@pytest.mark.anyio
async def test_python_and_js_clients_see_each_others_registrations_and_changes(both: tuple[Running, LineClient]) -> None:
    eureka, js = both
    client = py_client(eureka, "py")
    await client.start()
    js.sees({"js": "UP", "py": "UP"})
    await client.send_heartbeat()  # A refused heartbeat logs a warning, which is an error in tests.
    assert await seen_by(client) == {"js": "UP", "py": "UP"}
    call("PUT", eureka, "apps/WEB/py/status?value=OUT_OF_SERVICE")
    js.sees({"js": "UP", "py": "OUT_OF_SERVICE"})
    assert await seen_by(client) == {"js": "UP", "py": "OUT_OF_SERVICE"}
    call("DELETE", eureka, "apps/WEB/py/status?value=UP")
    js.sees({"js": "UP", "py": "UP"})
    call("PUT", eureka, "apps/WEB/js/metadata?weight=5")
    await seen_by(client)
    assert client.applications.get_application("web").get_instance("js").metadata["weight"] == "5"
    await client.stop()
    js.sees({"js": "UP"})


@pytest.mark.parametrize("encoding", ["json", "xml"])
def test_go_client_registers_renews_fetches_and_cancels(
    both: tuple[Running, LineClient], go_binary: Path, encoding: str
) -> None:
    """In XML the client writes a dataCenterInfo without a class."""
    eureka, js = both
    with line_client(str(go_binary), str(eureka.port), "go", encoding) as go:
        js.sees({"go": "UP", "js": "UP"})
        go.sees({"go": "UP", "js": "UP"})
        call("PUT", eureka, "apps/WEB/js/status?value=OUT_OF_SERVICE")
        go.sees({"go": "UP", "js": "OUT_OF_SERVICE"})
        go.process.terminate()
        assert go.process.wait(PATIENCE) == 0
        js.sees({"js": "OUT_OF_SERVICE"})


@pytest.mark.anyio
async def test_client_sees_a_replacement_with_the_same_hashcode(both: tuple[Running, LineClient]) -> None:
    eureka, js = both
    old, new = py_client(eureka, "old"), py_client(eureka, "new")
    await old.start()
    js.sees({"js": "UP", "old": "UP"})
    await new.start()
    call("DELETE", eureka, "apps/WEB/old")
    js.sees({"js": "UP", "new": "UP"})
    await old.stop()
    await new.stop()


def test_client_without_heartbeats_is_evicted_when_its_lease_expires(both: tuple[Running, LineClient]) -> None:
    eureka, js = both
    body = said("dead", hostName="host-dead", leaseInfo={"durationInSecs": 2})
    assert httpx.post(f"{eureka.url}/apps/WEB", json=body).status_code == 204
    js.sees({"dead": "UP", "js": "UP"})
    js.sees({"js": "UP"})


def test_clients_keep_their_leases_across_a_restart_and_register_again_on_404(
    tmp_path: Path, node_modules: None, unused: int, place: str
) -> None:
    with running(tmp_path, unused, place) as first, js_client(first, "js") as js:
        js.sees({"js": "UP"})
        with js_client(first, "other"):
            js.sees({"js": "UP", "other": "UP"})
            first.stop()
            with running(tmp_path, unused, place) as second:
                js.sees({"js": "UP", "other": "UP"})
                call("DELETE", second, "apps/WEB/js")
                eventually(lambda: httpx.get(f"{second.url}/apps/WEB/js").is_success, "it has registered again")
                js.sees({"js": "UP", "other": "UP"})
