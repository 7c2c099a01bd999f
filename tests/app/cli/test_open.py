"""`sluice open` prints the URL of a dashboard page, and opens it if stdout is a terminal."""

from __future__ import annotations

import json

import pytest

from tests.support.cli_fixture import DEPLOY, CliFixture


def test_open_prints_the_page_of_the_overview_a_service_or_a_deployment(
    cli_fixture: CliFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    monkeypatch.setattr("typer.launch", opened.append)
    cli_fixture.sluice(*DEPLOY)
    assert cli_fixture.sluice("open").stdout == f"{cli_fixture.url}/ui/\n"
    assert cli_fixture.sluice("open", "web").stdout == f"{cli_fixture.url}/ui/services/web\n"
    assert json.loads(cli_fixture.sluice("open", "1", "--json").stdout) == {"url": f"{cli_fixture.url}/ui/deployments/1"}
    assert opened == [], "stdout is not a terminal"


def test_open_exits_2_for_an_unknown_target(cli_fixture: CliFixture) -> None:
    for target in ("nothing", "99"):
        result = cli_fixture.sluice("open", target)
        assert (result.exit_code, result.stdout) == (2, "")
        assert "sluice " in result.stderr, "it says where to look"
