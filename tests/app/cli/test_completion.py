"""Shell completion of verbs, options and known names in bash, zsh and fish; without a server it offers nothing."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from app.cli import cli
from tests.app.cli.conftest import Sluice
from tests.support.api_stub import Stub
from tests.support.cli_fixture import DEPLOY, CliFixture

SHELLS = ("bash", "zsh", "fish")


def tab(cli_fixture: CliFixture, shell: str, line: str, **others: str) -> str:
    """Return the completions that the shell is offered for the last word of `line`."""
    words = line.split(" ")
    environment = {
        **cli_fixture.environment,
        "_SLUICE_COMPLETE": f"complete_{shell}",
        "_TYPER_COMPLETE_ARGS": line,
        "_TYPER_COMPLETE_WORD_TO_COMPLETE": words[-1],
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(words) - 1),
        **others,
    }
    return CliRunner().invoke(cli, [], env=environment).stdout


def test_completion_offers_verbs_and_known_names(cli_fixture: CliFixture) -> None:
    cli_fixture.sluice(*DEPLOY)
    for shell in SHELLS:
        assert "web" in tab(cli_fixture, shell, "sluice scale w")
        assert "web" not in tab(cli_fixture, shell, "sluice scale x")
        assert "1" in tab(cli_fixture, shell, "sluice retry 1")
        assert "web-r1-2" in tab(cli_fixture, shell, "sluice logs web-")
        offered = tab(cli_fixture, shell, "sluice ro")
        assert "rollback" in offered and "restart" not in offered


@pytest.mark.parametrize("verb", ["deploy", "ps", "history", "status", "open", "diff", "logs", "abort", "rm"])
def test_completion_offers_services_for_every_verb_that_takes_one(stub: Stub, sluice: Sluice, verb: str) -> None:
    stub.services["web"] = stub.service("web")
    asked = {"_SLUICE_COMPLETE": "complete_bash", "COMP_WORDS": f"sluice {verb} w", "COMP_CWORD": "2"}
    assert sluice(env=dict(asked)).stdout == "web\n"


def test_completion_is_empty_and_silent_without_a_server(cli_fixture: CliFixture) -> None:
    assert tab(cli_fixture, "bash", "sluice scale w", SLUICE_URL="http://127.0.0.1:1").strip() == ""
    assert tab(cli_fixture, "bash", "sluice scale w", SLUICE_TOKEN="sl_no").strip() == ""
    assert tab(cli_fixture, "bash", "sluice scale w", SLUICE_URL="nonsense").strip() == ""


@pytest.mark.parametrize("shell", SHELLS)
def test_completion_script_of_each_shell_calls_the_command(monkeypatch: pytest.MonkeyPatch, shell: str) -> None:
    monkeypatch.setattr("shellingham.detect_shell", lambda: (shell, f"/bin/{shell}"))
    result = CliRunner().invoke(cli, ["--show-completion"])
    assert result.exit_code == 0 and f"_SLUICE_COMPLETE=complete_{shell}" in result.stdout
