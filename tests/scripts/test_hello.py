"""samples/hello by itself: its ledger, its stop, and the faults that the end-to-end tests use."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from tests.support.docker_cli import ROOT
from tests.support.sluice_process import free_port


@contextmanager
def hello(tmp_path: Path, **faults: str) -> Iterator[tuple[subprocess.Popen[str], httpx.Client]]:
    """Run one instance that listens."""
    port = free_port()
    environment = os.environ | {"PORT": str(port), "HELLO_LEDGER": str(tmp_path / "ledger"), "SLUICE_SLOT": "1"} | faults
    sample = ROOT / "samples" / "hello" / "hello.py"
    process = subprocess.Popen([sys.executable, str(sample)], env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        assert "listens" in process.stdout.readline()
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=5, trust_env=False) as http:
            yield process, http
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_ledger_has_a_line_for_each_run_of_an_order(tmp_path: Path) -> None:
    with hello(tmp_path) as (_, http):
        for order in ("a", "b", "a"):
            assert http.post(f"/orders/{order}").status_code == 201
        answer = http.get("/ledger")
        assert answer.json() == ["a", "b", "a"]
        assert answer.headers["x-version"] == "1"
        assert http.get("/orders/a").status_code == 405
        assert http.get("/nowhere").status_code == 404
        assert http.post("/orders/c", content=iter([b"in ", b"chunks"])).status_code == 201


def test_sigterm_lets_requests_in_flight_finish(tmp_path: Path) -> None:
    with hello(tmp_path) as (process, http):
        assert process.stdout is not None
        order = b"POST /orders/late HTTP/1.1\r\nHost: hello\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n"
        with (
            http.stream("GET", "/events") as events,
            socket.create_connection(("127.0.0.1", http.base_url.port or 0)) as late,
        ):
            lines = events.iter_lines()
            next(lines)
            late.sendall(order)
            assert late.recv(1000).startswith(b"HTTP/1.1 100")
            process.send_signal(signal.SIGTERM)
            assert "2 requests to finish" in process.stdout.readline()
            late.sendall(b"now")
            assert late.recv(1000).startswith(b"HTTP/1.1 201")
            assert late.recv(1000) == b""
            list(lines)
        assert process.wait(5) == 0
        assert (tmp_path / "ledger").read_text() == "late\n"


def test_faults_apply_only_to_the_configured_slots(tmp_path: Path) -> None:
    with hello(tmp_path, HELLO_NEVER_HEALTHY="1", HELLO_FAULTY_SLOTS="1,3") as (_, http):
        assert http.get("/healthz").status_code == 503
        assert http.get("/").status_code == 200
    with hello(tmp_path, HELLO_NEVER_HEALTHY="1", HELLO_FAULTY_SLOTS="2") as (_, http):
        assert http.get("/healthz").status_code == 200


def test_ignore_sigterm_keeps_the_instance_running(tmp_path: Path) -> None:
    with hello(tmp_path, HELLO_IGNORE_SIGTERM="1") as (process, http):
        process.send_signal(signal.SIGTERM)
        assert process.stdout is not None
        assert "ignoring SIGTERM" in process.stdout.readline()
        assert http.get("/").status_code == 200


def test_die_after_ends_the_process_with_code_1(tmp_path: Path) -> None:
    with hello(tmp_path, HELLO_DIE_AFTER="0.2") as (process, _):
        assert process.wait(5) == 1


def test_exit_at_start_ends_the_process_with_the_configured_code() -> None:
    sample = ROOT / "samples" / "hello" / "hello.py"
    done = subprocess.run([sys.executable, str(sample)], env=os.environ | {"HELLO_EXIT_AT_START": "3"}, capture_output=True)
    assert done.returncode == 3
    assert b"HELLO_EXIT_AT_START" in done.stdout
