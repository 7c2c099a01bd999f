"""`sluice loadtest` sends requests to any HTTP service and counts each one."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest


class Plain(BaseHTTPRequestHandler):
    """HTTP service without the sample's orders; every seventh answer is an error when `breaks` is set."""

    protocol_version = "HTTP/1.1"
    breaks = False
    asked = 0

    def do_GET(self) -> None:
        type(self).asked += 1
        failed = self.breaks and self.asked % 7 == 0
        self.send_response(404 if "ledger" in self.path else 500 if failed else 200)
        self.send_header("X-Version", "7")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - an override
        """Log nothing."""


@pytest.fixture
def plain() -> Iterator[str]:
    Plain.breaks = False
    with ThreadingHTTPServer(("127.0.0.1", 0), Plain) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


def loadtest(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from app.cli import main; main()", "loadtest", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_loadtest_counts_answers_by_version_and_exits_0(plain: str) -> None:
    ended = loadtest(plain, "--rate", "50", "--for", "1", "--json")
    reported = json.loads(ended.stdout)
    assert (ended.returncode, reported["lost"], reported["run_twice"]) == (0, 0, 0)
    assert [(row["version"], row["answered"] == reported["requests"] > 20) for row in reported["versions"]] == [("7", True)]
    assert "plain GETs only" in ended.stderr


def test_loadtest_exits_1_and_names_the_error_when_a_request_is_lost(plain: str) -> None:
    Plain.breaks = True
    ended = loadtest(plain, "--rate", "50", "--for", "1", "--gets-only")
    assert ended.returncode == 1
    assert "500" in ended.stderr


def test_loadtest_exits_3_when_the_url_does_not_answer(plain: str) -> None:
    assert loadtest("http://127.0.0.1:1/", "--for", "1").returncode == 3


@pytest.mark.parametrize(
    "arguments", [("nonsense",), ("http://x:0/",), ("http://127.0.0.1/", "--posts", "0.9", "--slow", "0.9")]
)
def test_loadtest_with_invalid_arguments_is_a_usage_error(arguments: tuple[str, ...]) -> None:
    assert loadtest(*arguments).returncode == 2
