"""Background tasks: retried while the engine or the gateway does not answer; repeated crashes end the process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import pytest
from fastapi.testclient import TestClient

from app import tasks
from app.main import create_app
from app.server import EXIT_CRASHED
from app.settings import Settings
from services.engine.docker.engine import DockerEngine
from services.engine.docker.infrastructure import DockerInfrastructure
from services.engine.port import EngineError
from services.readiness import Readiness
from services.routing.port import RoutingError
from tests.app.test_server import serving
from tests.support.app_fixture import build, eventually, living


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "FIRST_RETRY_SECONDS", 0.01)
    monkeypatch.setattr(tasks, "MAX_RETRY_SECONDS", 0.05)


def test_engine_and_infrastructure_are_closed_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    closed: set[type] = set()
    for part in (DockerEngine, DockerInfrastructure):
        monkeypatch.setattr(part, "close", lambda self: closed.add(type(self)))
    with TestClient(create_app(Settings(data=tmp_path, docker_host="tcp://127.0.0.1:1"))) as client:
        assert client.get("/healthz").status_code == 200
    assert closed == {DockerEngine, DockerInfrastructure}


@pytest.mark.parametrize(
    ("refusal", "part"), [(EngineError("no such image", transient=True), "engine"), (RoutingError("no answer"), "gateway")]
)
def test_readyz_reports_the_reason_until_the_infrastructure_is_up(tmp_path: Path, refusal: Exception, part: str) -> None:
    app_fixture = build(tmp_path)
    app_fixture.infrastructure.refuses = refusal
    with living(app_fixture):
        reported = eventually(lambda: app_fixture.client.get("/readyz").json().get("detail"), "it says why")
        assert f"{part}: {refusal}" in reported or "loop" in reported
        accepted = app_fixture.deploy(wait="")
        assert accepted.status_code == 202, "what is asked meanwhile waits"
        app_fixture.infrastructure.refuses = None
        assert app_fixture.client.get("/deployments/1?wait=20").json()["status"] == "succeeded"
        assert app_fixture.client.get("/readyz").status_code == 200
        assert app_fixture.client.get("/services/web").json()["internal_url"].startswith("http://10.99.0.1:")


@pytest.mark.parametrize("subnet", ["10.99.0.0/24", "10.98.0.0/24"], ids=["the same subnet", "another subnet"])
def test_missing_network_is_named_by_readyz_and_created_again(tmp_path: Path, subnet: str) -> None:
    with living(build(tmp_path)) as app_fixture:
        eventually(lambda: app_fixture.client.get("/readyz").status_code == 200, "it is ready")
        app_fixture.infrastructure.refuses = EngineError("no free subnet")
        app_fixture.infrastructure.network_missing = True
        eventually(lambda: "network: " in str(app_fixture.client.get("/readyz").json().get("detail")) or None, "named")
        assert app_fixture.client.get("/readyz").json()["network"]["ok"] is False
        app_fixture.infrastructure.subnet = subnet
        app_fixture.infrastructure.refuses = None
        eventually(lambda: app_fixture.client.get("/readyz").status_code == 200, "it is ready")
        eventually(lambda: app_fixture.sluice.bridge == f"{subnet.rpartition('.')[0]}.1", "the controller knows")
        eventually(lambda: app_fixture.client.get("/readyz").status_code == 200, "it is ready")
        assert app_fixture.deploy().json()["status"] == "succeeded"
        address = app_fixture.client.get("/instances").json()["items"][0]["address"]
        assert address.startswith(subnet.rpartition(".")[0])


def test_readyz_is_ok_only_after_the_controller_has_restored_the_gateway(tmp_path: Path) -> None:
    app_fixture, held = build(tmp_path), [True]

    async def hold(call: str, _: str) -> None:
        while call == "restore" and held:  # noqa: ASYNC110 - a test in another thread says when
            await anyio.sleep(0.01)

    app_fixture.gateway.before = hold
    with living(app_fixture):
        eventually(lambda: ("restore", "") in app_fixture.gateway.calls, "it is restoring")
        assert app_fixture.client.get("/readyz").json()["loop"] == {"ok": False, "error": "is starting"}
        held.clear()
        eventually(lambda: app_fixture.client.get("/readyz").status_code == 200, "it is ready")


def test_infrastructure_task_that_keeps_crashing_ends_the_process_with_its_code(tmp_path: Path) -> None:
    app_fixture = build(tmp_path)
    app_fixture.infrastructure.refuses = RuntimeError("a bug")
    crashes: list[Any] = []
    app_fixture.app = create_app(
        app_fixture.settings,
        engine=app_fixture.engine,
        router=app_fixture.gateway,
        infrastructure=app_fixture.infrastructure,
        on_fatal=lambda: crashes[0].crash(),
    )
    with serving(app_fixture) as served:
        crashes.append(served.server)
        served.thread.join(20)
        assert not served.thread.is_alive()
        assert served.server.exit_code == EXIT_CRASHED


def test_task_survives_two_crashes() -> None:
    readiness, fatal, runs = Readiness(), [], []

    async def run() -> None:
        runs.append(readiness.not_ready())
        if len(runs) < 3:
            raise RuntimeError("once more")

    anyio.run(tasks.supervise, "task", run, readiness, lambda: fatal.append(1))
    assert (len(runs), fatal, readiness.not_ready()) == (3, [], {})


def test_housekeeping_stores_the_last_use_of_tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "HOUSEKEEPING_SECONDS", 0.02)
    with living(build(tmp_path)) as app_fixture:
        app_fixture.client.get("/services")

        def used() -> bool:
            with app_fixture.sluice.store.read_session() as session:
                return bool(session.connection().exec_driver_sql("SELECT last_used_at FROM token").scalar())

        eventually(used, "it is in the table")
