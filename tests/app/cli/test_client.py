"""The CLI when Sluice is unreachable, starts late, restarts or loses an answer; and how the CLI finds its URL and token."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.app.cli.conftest import Sluice
from tests.support.api_stub import TOKEN, Stub

DEPLOY = ("deploy", "web", "--image", "web:1.5")


def test_unreachable_server_exits_3_at_once_and_names_the_url(sluice: Sluice) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        result = sluice(*DEPLOY, "--json", env={"SLUICE_URL": url})
    assert result.exit_code == 3
    assert f"Sluice does not answer at {url}" in result.stderr
    assert "--url" in result.stderr
    assert json.loads(result.stdout)["code"] == "unreachable"


def test_missing_token_exits_2_and_says_how_to_set_one(sluice: Sluice) -> None:
    result = sluice("ps", env={"SLUICE_TOKEN": None})
    assert result.exit_code == 2
    assert "SLUICE_TOKEN" in result.stderr


def test_lost_answer_is_retried_without_a_second_deployment(stub: Stub, sluice: Sluice) -> None:
    stub.faults = ["lose answer"]
    result = sluice(*DEPLOY)
    assert result.exit_code == 0
    first, second = stub.asked("POST", "/deployments")
    assert first.headers["idempotency-key"] == second.headers["idempotency-key"]
    assert list(stub.deployments) == [17]


def test_deploy_called_twice_makes_two_deployments(stub: Stub, sluice: Sluice) -> None:
    sluice(*DEPLOY)
    sluice(*DEPLOY)
    first, second = stub.asked("POST", "/deployments")
    assert first.headers["idempotency-key"] != second.headers["idempotency-key"]


def test_request_is_retried_while_the_server_is_stopping(stub: Stub, sluice: Sluice) -> None:
    stub.faults = ["503", "503"]
    assert sluice(*DEPLOY).exit_code == 0
    assert len(stub.asked("POST", "/deployments")) == 3


def test_interrupted_event_stream_resumes_without_repeating_an_event(stub: Stub, sluice: Sluice) -> None:
    stub.faults = ["", "cut"]
    result = sluice(*DEPLOY)
    assert result.exit_code == 0
    assert [request.headers["last-event-id"] for request in stub.asked("GET", "/deployments/17/events")] == ["0", "3"]
    reported = [line.split(" s  ", 1)[1] for line in result.stderr.splitlines() if " s  " in line]
    assert len(reported) == len(set(reported)) == 9


def test_follow_survives_a_restart_of_the_server(stub: Stub, sluice: Sluice) -> None:
    stub.hold = threading.Event()

    def restart() -> None:
        assert stub.streams_open.wait(10)
        stub.stop()
        stub.start()
        assert stub.hold is not None
        stub.hold.set()

    restarting = threading.Thread(target=restart)
    restarting.start()
    result = sluice(*DEPLOY)
    restarting.join()
    assert result.exit_code == 0
    assert result.stdout.startswith("web deployed: revision 4")


def test_follow_exits_3_when_the_server_stays_unreachable(stub: Stub, sluice: Sluice) -> None:
    stub.hold = threading.Event()

    def stop() -> None:
        assert stub.streams_open.wait(10)
        stub.stop()

    stopping = threading.Thread(target=stop)
    stopping.start()
    result = sluice(*DEPLOY, env={"SLUICE_PATIENCE": "0.5"})
    stopping.join()
    assert result.exit_code == 3
    assert "Sluice does not answer" in result.stderr
    assert "sluice status 17 --follow" in result.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupt_leaves_the_deployment_running_and_says_how_to_follow_it(
    stub: Stub, home: Path, number: signal.Signals
) -> None:
    stub.hold = threading.Event()
    environment = {**os.environ, "SLUICE_URL": stub.url, "SLUICE_TOKEN": TOKEN}
    command = [sys.executable, "-c", "from app.cli import main; main()", *DEPLOY]
    root = Path(__file__).parents[3]
    with subprocess.Popen(
        command, env={**environment, "PYTHONPATH": str(root)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert stub.streams_open.wait(20)
        process.send_signal(number)
        stdout, stderr = process.communicate(timeout=20)
    assert process.returncode == 130
    assert stdout == ""
    assert "deployment 17 of web continues" in stderr
    assert "sluice status 17 --follow" in stderr
    assert "sluice abort 17" in stderr
    assert "Traceback" not in stderr
    assert stub.asked("POST", "/deployments/17/abort") == []


def test_configuration_file_sets_the_url_and_the_token(stub: Stub, sluice: Sluice, home: Path) -> None:
    keep(home, f'url = "{stub.url}"\ntoken = "{TOKEN}"\n')
    assert sluice("ps", env={"SLUICE_URL": None, "SLUICE_TOKEN": None}).exit_code == 0


def test_stored_token_is_not_sent_to_another_url(stub: Stub, sluice: Sluice, home: Path) -> None:
    keep(home, f'url = "http://127.0.0.1:1"\ntoken = "{TOKEN}"\n')
    assert sluice("ps", env={"SLUICE_TOKEN": None}).exit_code == 2
    assert "authorization" not in stub.requests[0].headers


@pytest.mark.parametrize("text", ["url = ", "port = 7080\n", "url = 5\n"])
def test_invalid_configuration_file_is_named_in_the_error(sluice: Sluice, home: Path, text: str) -> None:
    keep(home, text)
    result = sluice("ps", env={"SLUICE_URL": None})
    assert result.exit_code == 2
    assert "config.toml" in result.stderr


def test_invalid_url_is_a_usage_error(sluice: Sluice) -> None:
    result = sluice("ps", "--url", "localhost:7080")
    assert result.exit_code == 2
    assert "http://127.0.0.1:7080" in result.stderr


def test_invalid_patience_is_a_usage_error(sluice: Sluice) -> None:
    result = sluice("ps", env={"SLUICE_PATIENCE": "long"})
    assert (result.exit_code, result.stdout) == (2, "")
    assert "SLUICE_PATIENCE" in result.stderr


def test_cli_imports_no_heavy_module() -> None:
    heavy = ["fastapi", "sqlmodel", "sqlalchemy", "pydantic", "docker", "uvicorn", "structlog"]
    code = f"import sys, app.cli; print([m for m in {heavy} if m in sys.modules])"
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[3]
    )
    assert found.stdout == "[]\n"


def keep(home: Path, text: str) -> None:
    path = home / "config" / "sluice" / "config.toml"
    path.parent.mkdir(parents=True)
    path.write_text(text)
