"""The options that users of kubectl type: -o, --wait, --timeout; and suggestions of service names."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest
import yaml

from app.cli.errors import CliError
from app.cli.output.console import Format, Output
from app.cli.waiting import Waiting, seconds_of, waiting_of
from tests.app.cli.conftest import Sluice
from tests.support.api_stub import Stub
from tests.support.cli_fixture import CliFixture

DEPLOY = ("deploy", "web", "--image", "web:1.5")


@pytest.mark.parametrize(
    "arguments", [("ps",), DEPLOY, ("history",), ("token", "list"), ("version",), ("status",)], ids=" ".join
)
def test_output_has_the_same_document_as_json_and_as_yaml(stub: Stub, sluice: Sluice, arguments: tuple[str, ...]) -> None:
    stub.services = {"web": stub.service("web")}
    old, new = sluice(*arguments, "--json"), sluice(*arguments, "-o", "json")
    text = sluice(*arguments, "--output=yaml")
    assert (old.exit_code, new.exit_code, text.exit_code) == (0, 0, 0)
    kinds = {type(json.loads(old.stdout)), type(json.loads(new.stdout)), type(yaml.safe_load(text.stdout))}
    assert len(kinds) == 1
    if arguments[0] != "deploy":
        assert json.loads(old.stdout) == json.loads(new.stdout) == yaml.safe_load(text.stdout)


def test_name_output_is_that_of_quiet(stub: Stub, sluice: Sluice) -> None:
    result = sluice(*DEPLOY, "-o", "name")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "17\n", "")


def test_wide_output_shortens_no_cell_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "40")
    assert (Output().width, Output(Format.WIDE).width) == (40, None)


def test_refusal_with_yaml_is_the_problem_as_yaml(sluice: Sluice) -> None:
    result = sluice(*DEPLOY, "--set", "replicas=500", "-o", "yaml")
    assert result.exit_code == 2
    assert yaml.safe_load(result.stdout)["errors"] == [{"field": "replicas", "message": "must be at most 100"}]


def test_yaml_output_escapes_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    hostile = "\x1b[31m\x9b\u202eé\x7f"
    Output(Format.YAML).line({"text": hostile}, "")
    said = capsys.readouterr().out
    assert all(" " <= character < "\x7f" or character == "\n" for character in said)
    assert list(yaml.safe_load_all(said)) == [{"text": hostile}]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("ps", "--json", "-o", "yaml"), "--json and --output yaml exclude each other"),
        (("ps", "-o", "xml"), "xml"),
        ((*DEPLOY, "--wait", "--detach"), "--detach and --wait exclude each other"),
        (("scale", "web", "2", "-d", "--timeout", "5m"), "--detach and --timeout exclude each other"),
        (("restart", "web", "--timeout", "soon"), "--timeout 'soon' is not a duration"),
        (("status", "web", "--timeout", "5m"), "--timeout does not apply without --follow"),
    ],
)
def test_contradicting_options_are_refused(stub: Stub, sluice: Sluice, arguments: tuple[str, ...], words: str) -> None:
    result = sluice(*arguments)
    assert (result.exit_code, stub.requests) == (2, [])
    assert words in result.stderr


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("90s", 90), ("5m", 300), ("1h30m", 5400), ("1h1m1s", 3661), ("0", None), ("0s", None)]
)
def test_timeout_is_a_duration_and_zero_is_no_limit(text: str, seconds: float | None) -> None:
    assert seconds_of(text) == seconds


def test_wait_is_the_default_and_its_values_of_kubectl_are_accepted(stub: Stub, sluice: Sluice) -> None:
    assert waiting_of(detach=False, wait=True, timeout=None) == Waiting()
    for spelling in ("--wait", "--wait=true"):
        assert sluice(*DEPLOY, spelling).stdout.startswith("web deployed: revision 4")
    assert sluice(*DEPLOY, "--wait=false").stdout == "web: deployment 19 accepted.\n"
    for text in ("", "5x", "-1", "m"):
        with pytest.raises(CliError):
            seconds_of(text)


@pytest.mark.parametrize("follow", [DEPLOY, ("status", "17", "--follow")], ids=["deploy", "status"])
def test_timeout_ends_the_command_and_not_the_deployment(stub: Stub, sluice: Sluice, follow: tuple[str, ...]) -> None:
    stub.hold = threading.Event()
    if follow is not DEPLOY:
        sluice(*DEPLOY, "--detach")
    result = sluice(*follow, "--timeout", "1s", "-o", "json")
    assert result.exit_code == 1
    assert "timed out; deployment 17 of web continues" in result.stderr
    assert "sluice status 17 --follow" in result.stderr
    assert json.loads(result.stdout)["code"] == "wait_timeout"
    assert stub.deployments[17]["status"] == "progressing"


def test_unknown_service_gets_the_nearest_name(cli_fixture: CliFixture) -> None:
    first = cli_fixture.sluice("deploy", "billing", "--image", "web:1", "--set", "healthcheck.disable=true")
    assert first.exit_code == 0, first.output
    for arguments in (
        ("scale", "biling", "3"), ("restart", "biling"), ("rollback", "biling"), ("rm", "biling", "--yes"), ("ps", "biling"),
        ("status", "biling"), ("status", "biling", "--follow"), ("logs", "biling"), ("history", "biling"),
        ("open", "biling"), ("pause", "biling"), ("retry", "biling"), ("diff", "biling", "--to", "3"),
    ):  # fmt: skip
        result = cli_fixture.sluice(*arguments)
        assert result.exit_code == 2, arguments
        assert 'service "biling" not found; did you mean "billing"?' in result.stderr, arguments
    assert "did you mean" not in cli_fixture.sluice("scale", "other", "3").stderr
    typo = cli_fixture.sluice("deploy", "biling", "--set", "init=true")
    assert 'service "biling" does not exist yet; did you mean "billing"?' in typo.stderr
    Path("compose.yaml").write_text("name: shop\nservices:\n  billing: {image: web:1}\n")
    assert 'did you mean "billing"?' in cli_fixture.sluice("deploy", "-f", "compose.yaml", "--only", "biling").stderr


def test_refusal_is_in_the_words_of_the_api(cli_fixture: CliFixture) -> None:
    result = cli_fixture.sluice(
        "deploy", "web", "--image", "web:1", "--set", "max_surge=-1", "--set", "port=many", "--set", "init=1", "--set",
        "routes=5", "--set", "environment=5", "--set", "healthcheck.retries=0", "--set", "user=5",
    )  # fmt: skip
    assert result.exit_code == 2
    for sentence in (
        "port: must be a whole number", "init: must be true or false",
        "routes: must be a list", "environment: must be a mapping", "healthcheck.retries: must be at least 1",
        "user: must be text",
    ):  # fmt: skip
        assert sentence in result.stderr
    assert "Input" not in result.stderr
    assert "valid" not in result.stderr.replace("invalid", "")
