"""`make demo` on a real engine: its final output, a second run, its exit code after a loss."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from bench.api import Api, UnexpectedResult
from bench.demo import Demo, conclude
from services.loadtest.request_log import RequestLog, RequestRecord
from tests.support.shell import Shell


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    shell = Shell(tmp_path / "data")
    yield shell
    shell.clean()


def entry(status: int | None, id: str = "") -> RequestRecord:
    return RequestRecord(
        0.1, "restart", "POST" if id else "GET", False, 0.0, 0.01, status, "hello-r1-1", id, "" if status else "closed"
    )


def concluded(ledger: RequestLog) -> tuple[int, str]:
    written = io.StringIO()
    code = conclude(Console(file=written, width=110), ledger, {"restart": 1.5}, "http://127.0.0.1:7080/ui/sign-in?code=c")
    return code, written.getvalue()


def test_successful_demo_ends_with_a_link_and_suggestions() -> None:
    ledger = RequestLog([entry(200), entry(201, "a")], {"restart": 1.5})
    ledger.executions["a"] = 1
    code, text = concluded(ledger)
    assert code == 0
    assert "requests none was lost and none was run twice" in text
    assert "/ui/sign-in?code=c" in text
    assert text.count("\n  ") == 3


@pytest.mark.parametrize("runs", [0, 2])
def test_order_that_ran_twice_or_never_fails_the_demo(runs: int) -> None:
    ledger = RequestLog([entry(201, "a")], {"restart": 1.5})
    ledger.executions["a"] = runs
    assert concluded(ledger)[0] == 1


def test_lost_request_fails_the_demo_and_is_printed() -> None:
    code, text = concluded(RequestLog([entry(200), entry(None)], {"restart": 1.5}))
    assert code == 1
    assert "1 lost" in text
    assert "restart: GET keep-alive" in text


def test_many_lost_requests_are_also_counted_by_error() -> None:
    _, text = concluded(RequestLog([entry(None)] * 30 + [entry(502)], {"restart": 1.5}))
    assert "… and 11 more. In total:\n30 × - closed\n1 × 502" in text


def test_unreachable_sluice_fails_the_demo_with_a_message() -> None:
    async def scenario() -> None:
        api = Api("http://127.0.0.1:9", "sl_none")
        with pytest.raises(UnexpectedResult, match="does not answer"):
            await Demo(api, Console(file=io.StringIO()), "ledger", 10).run()
        await api.http.aclose()

    asyncio.run(scenario())


@pytest.mark.docker
@pytest.mark.slow
@pytest.mark.full
def test_demo_succeeds_twice_in_a_row(shell: Shell) -> None:
    for _ in range(2):
        done = shell.make("demo")
        assert done.returncode == 0, done.stdout + done.stderr
        assert "requests none was lost and none was run twice" in done.stdout
        assert "/ui/sign-in?code=" in done.stdout
