"""`sluice open` prints the dashboard's page, and opens it where a person is looking."""

from __future__ import annotations

import json

import pytest

from tests.support.cli_fixture import DEPLOY, CliFixture


def test_the_page_of_a_service_a_deployment_and_the_overview(fixture: CliFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr("typer.launch", opened.append)
    fixture.sluice(*DEPLOY)
    assert fixture.sluice("open").stdout == f"{fixture.url}/ui/\n"
    assert fixture.sluice("open", "web").stdout == f"{fixture.url}/ui/services/web\n"
    assert json.loads(fixture.sluice("open", "1", "--json").stdout) == {"url": f"{fixture.url}/ui/deployments/1"}
    assert opened == [], "nobody is looking: stdout is no terminal"


def test_what_is_not_there_has_no_page(fixture: CliFixture) -> None:
    for target in ("nothing", "99"):
        result = fixture.sluice("open", target)
        assert (result.exit_code, result.stdout) == (2, "")
        assert "sluice " in result.stderr, "it says where to look"
