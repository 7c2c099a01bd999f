"""`sluice deploy -f compose.yaml`, against Sluice itself with a fake engine."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from app.cli.client.http import Client
from app.cli.client.server_address import ServerAddress
from app.cli.command import CommandContext
from app.cli.input.compose import ComposeFile, request_of
from app.cli.input.files import InputFile
from app.cli.output.console import Output
from tests.support.cli_fixture import CliFixture

FILE = """\
services:
  web:
    image: web:${TAG}
    env_file: [web.env]
    environment: [PASSED, UNSET]
    depends_on: [api]
    x-sluice: {healthcheck: {disable: true}}
  api:
    image: web:2
    expose: [8000]
    profiles: ["", extra]
    x-sluice: {healthcheck: {disable: true}}
"""


@pytest.fixture
def shop(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Provide the directory of a Compose project, which is the working directory."""
    for name in ("TAG", "PASSED", "UNSET", "COMPOSE_PROJECT_NAME", "COMPOSE_PROFILES"):
        monkeypatch.delenv(name, raising=False)
    directory = home / "work"
    (directory / "compose.yaml").write_text(FILE)
    (directory / ".env").write_text("TAG=1\nPASSED=from .env\n")
    (directory / "web.env").write_text('# of web\nexport A="a b" # quoted\nB=${A}!\nPLAIN=c\n')
    return directory


def spec(cli_fixture: CliFixture, service: str) -> dict[str, object]:
    document = json.loads(cli_fixture.sluice("status", service, "--json").stdout)
    return dict(document["spec"])


def test_compose_deploy_follows_every_service_and_prints_each_result(cli_fixture: CliFixture, shop: Path) -> None:
    result = cli_fixture.sluice("deploy", "-f", "compose.yaml", "--profile", "extra")
    assert result.exit_code == 0, result.output
    first, second = result.stdout.splitlines()
    assert first.startswith("api deployed: revision 1 (web:2)")
    assert second.startswith("web deployed: revision 1 (web:1)")
    assert "api-r1-1  serves" in result.stderr  # the second may have ended before it is followed: only its result is printed
    assert spec(cli_fixture, "web")["environment"] == {"A": "a b", "B": "a b!", "PLAIN": "c", "PASSED": "from .env"}
    assert spec(cli_fixture, "web")["labels"] == {"compose.project": "work"}


def test_compose_deploy_of_selected_services_works_from_any_directory_with_json(
    cli_fixture: CliFixture, shop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir("/")
    result = cli_fixture.sluice(
        "deploy", "-f", str(shop / "compose.yaml"), "--only", "web", "-p", "shop", "--note", "3f2a9c1", "--json"
    )
    document = json.loads(result.stdout)
    assert (document["group"], [each["note"] for each in document["deployments"]]) == (1, ["3f2a9c1"])
    assert spec(cli_fixture, "web")["labels"] == {"compose.project": "shop"}


def test_environment_overrides_the_env_file_and_the_env_file_can_be_replaced(
    cli_fixture: CliFixture, shop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (shop / "prod.env").write_text("TAG=2\nPASSED=from prod.env\n")
    monkeypatch.setenv("PASSED", "from here")
    assert cli_fixture.sluice("deploy", "-f", "compose.yaml", "--only", "web", "--env-file", "prod.env").exit_code == 0
    assert (spec(cli_fixture, "web")["image"], spec(cli_fixture, "web")["environment"]) == (
        "web:2", {"A": "a b", "B": "a b!", "PLAIN": "c", "PASSED": "from here"},
    )  # fmt: skip


def test_compose_deploy_exits_1_and_prints_deployments_whose_dependency_failed(cli_fixture: CliFixture, shop: Path) -> None:
    (shop / "compose.yaml").write_text(FILE.replace("image: web:2", "image: web:broken"))
    result = cli_fixture.sluice("deploy", "-f", "compose.yaml", "--profile", "extra")
    assert result.exit_code == 1
    assert "api: deployment 1 failed (unhealthy_instance)" in result.stdout
    assert "web: deployment 2 failed (dependency_failed): dependency api failed" in result.stdout


def test_detached_compose_deploy_prints_the_group_and_its_deployments(cli_fixture: CliFixture, shop: Path) -> None:
    result = cli_fixture.sluice("deploy", "-f", "compose.yaml", "--detach", "--only", "web")
    assert (result.exit_code, result.stdout) == (0, "Group 1 accepted: deployments 1.\n")


def test_unsupported_compose_fields_are_printed_with_their_lines(cli_fixture: CliFixture, shop: Path) -> None:
    (shop / "compose.yaml").write_text(FILE.replace("    depends_on: [api]\n", "    cap_add: [X]\n    read_only: true\n"))
    result = cli_fixture.sluice("deploy", "-f", "compose.yaml")
    assert result.exit_code == 2
    assert "  services.web.cap_add: line 6: not supported" in result.stderr
    assert "  services.web.read_only: line 7: not supported" in result.stderr
    assert "docs/compose.md" in result.stderr
    assert cli_fixture.sluice("ps", "--quiet").stdout == ""


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("TAG", "variable TAG is not set"),
        ("web.env", "web.env not found"),
        ("yaml", "compose.yaml, line 2: is not YAML"),
        (".env", ".env, line 1: not NAME=value"),
    ],
)
def test_compose_deploy_reports_missing_or_invalid_local_input(
    cli_fixture: CliFixture, shop: Path, change: str, words: str
) -> None:
    match change:
        case "TAG":
            (shop / ".env").unlink()
        case "web.env":
            (shop / "web.env").unlink()
        case "yaml":
            (shop / "compose.yaml").write_text("services:\n\t- a\n")
        case _:
            (shop / ".env").write_text("'what is this\n")
    result = cli_fixture.sluice("deploy", "-f", "compose.yaml")
    assert result.exit_code == 2
    assert words in result.stderr


def test_options_of_a_service_and_of_a_compose_file_exclude_each_other(cli_fixture: CliFixture, shop: Path) -> None:
    for given in (("--image", "web:2"), ("--replicas", "3"), ("--no-profile",), ("web",)):
        result = cli_fixture.sluice("deploy", "-f", "compose.yaml", *given)
        assert result.exit_code == 2
        assert "compose.yaml is a Compose file" in result.stderr
    assert "no Compose file is given" in cli_fixture.sluice("deploy", "web", "--image", "web:1", "--only", "web").stderr


def test_compose_request_contains_only_variables_that_the_file_uses(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTHER_SECRET", "hunter2")
    desk = CommandContext(Client(ServerAddress("http://127.0.0.1:9", None)), Output())
    path, body = request_of(desk, ComposeFile([InputFile(str(shop / "compose.yaml"), FILE)], only="web"))
    assert path == f"/apply?project=work&directory={str(shop).replace('/', '%2F')}&only=web"
    assert body["variables"] == {"TAG": "1", "PASSED": "from .env"}
    assert body["env_files"] == {"web.env": {"A": "a b", "B": "a b!", "PLAIN": "c"}}
