"""`.env` files in their common forms, and those of the former scripts as profiles."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from app.cli.errors import CliError
from app.cli.input.envfile import read_env_file
from tests.app.cli.conftest import Sluice
from tests.support.api_stub import Stub
from tests.support.cli_fixture import CliFixture

PROD = "APP_NAME=sample-service\nEXCLUDED_PORTS=8080,3000\nINSTANCE_NUM=3\n"


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("A=plain", "plain"),
        ("  A = spaced words  ", "spaced words"),
        ('A="in quotes # no comment"', "in quotes # no comment"),
        ("A='single $HOME ${B}'", "single $HOME ${B}"),
        ('A="two\nlines"', "two\nlines"),
        ('A="said \\"so\\"\\n"', 'said "so"\n'),
        ("export A=exported # a comment", "exported"),
        ("A=with#hash", "with#hash"),
        ("A=", ""),
        ("A=x=y==", "x=y=="),
        ("B=b\nA=${B}/${MISSING:-c}", "b/c"),
        ("B=b\nA=$B-$FROM_HERE", "b-here"),
        ("A=a$$b", "a$b"),
        ('A="a\\$b"', "a$b"),
        ("A='a$$b'", "a$$b"),
        ("A=first\nA=last", "last"),
        ("\ufeffA=by Notepad", "by Notepad"),
        ("FROM_HERE\nA=${FROM_HERE}", "here"),
    ],
)
@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_env_file_is_parsed_like_common_dotenv_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, value: str, ending: str
) -> None:
    monkeypatch.delenv("MISSING", raising=False)
    monkeypatch.setenv("FROM_HERE", "here")
    path = tmp_path / "x.env"
    path.write_bytes(f"{line}\n\n# of ours\n".replace("\n", ending).encode())
    assert read_env_file(path)["A"] == value


@pytest.mark.parametrize(
    "line",
    ["hunter2 is no assignment", "=hunter2", 'A="hunter2', "A='hunter2' x", "A B=hunter2", "A\x7fB=hunter2"],
)
def test_env_file_error_names_the_invalid_line_without_its_text(tmp_path: Path, line: str) -> None:
    path = tmp_path / "x.env"
    path.write_text(f"FINE=1\n\n\n{line}\nB=2\n")
    with pytest.raises(CliError, match=r"x\.env, line 4: not NAME=value") as refused:
        read_env_file(path)
    assert "hunter2" not in f"{refused.value} {refused.value.advice} {refused.value.document}"


def test_env_file_may_have_every_name_that_the_engine_accepts(tmp_path: Path) -> None:
    path = tmp_path / "x.env"
    path.write_text("2FA_ISSUER=x\nConnectionStrings:Default=y\nlogging.level[0]=z\n")
    assert read_env_file(path) == {"2FA_ISSUER": "x", "ConnectionStrings:Default": "y", "logging.level[0]": "z"}


@pytest.mark.parametrize("line", ["A=x$hunter2", 'A="${hunter2}"', "A=hunter2$1", "A=hunter2$"])
def test_env_file_value_with_an_unset_variable_is_refused_without_its_text(tmp_path: Path, line: str) -> None:
    path = tmp_path / "x.env"
    path.write_text(f"FINE=1\n{line}\n")
    with pytest.raises(CliError, match=r"x\.env, line 2: A has a \$ that is not a variable which is set") as refused:
        read_env_file(path)
    assert "hunter2" not in f"{refused.value} {refused.value.advice} {refused.value.document}"


def test_name_alone_in_an_env_file_must_be_set(stub: Stub, sluice: Sluice, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOWHERE", raising=False)
    Path("prod.env").write_text("A=1\nNOWHERE\n")
    for option in ("--env-file", "--profile-file"):
        result = sluice("deploy", "web", option, "prod.env")
        assert (result.exit_code, stub.requests) == (2, [])
        assert "prod.env, line 2: NOWHERE is not set in this environment" in result.stderr


def test_unreadable_env_file_is_a_usage_error(sluice: Sluice, stub: Stub) -> None:
    Path("binary.env").write_bytes(b"A=\xff\xfe")
    for path in ("binary.env", "missing.env", "."):
        result = sluice("deploy", "web", "--env-file", path)
        assert (result.exit_code, f"{path} cannot be read" in result.stderr) == (2, True)
    assert stub.requests == []


def sent(stub: Stub) -> dict[str, Any]:
    body: dict[str, Any] = stub.asked("POST", "/deployments")[-1].body
    return body


def test_profile_file_of_the_former_scripts_becomes_a_profile(stub: Stub, sluice: Sluice) -> None:
    Path("prod.env").write_text(PROD + "export DB_URL='jdbc:x?a=b' # theirs\n")
    result = sluice("deploy", "--profile-file", "prod.env", "--image", "sample-service:1")
    assert result.exit_code == 0, result.stderr
    assert sent(stub) == {
        "service": "sample-service", "image": "sample-service:1", "profile": "prod",
        "profiles": {
            "prod": {
                "replicas": 3, "host_port": {"auto": True, "exclude": [8080, 3000]},
                "environment": {"SPRING_PROFILE": "prod", "DB_URL": "jdbc:x?a=b"},
            },
        },
    }  # fmt: skip


def test_profile_file_overrides_the_spec_file_and_options_override_both(stub: Stub, sluice: Sluice) -> None:
    Path("sluice.yaml").write_text(
        "service: sample-service\nimage: x:1\nreplicas: 2\nprofiles: {prod: {drain_timeout: 9, environment: {A: 1, B: 1}}}\n"
    )
    Path("prod.env").write_text(PROD + "A=2\nC=2\n")
    Path("more.env").write_text("C=3\nINSTANCE_NUM=7\n")
    assert sluice("deploy", "--profile-file", "prod.env", "--env-file", "more.env", "-e", "D=4").exit_code == 0
    body = sent(stub)
    assert (body["mode"], body["profile"], "environment" in body, "replicas" in body) == ("replace", "prod", False, False)
    assert body["profiles"]["prod"]["replicas"] == 3
    assert body["profiles"]["prod"]["drain_timeout"] == 9
    assert body["profiles"]["prod"]["environment"] == {
        "SPRING_PROFILE": "prod", "A": "2", "B": 1, "C": "3", "D": "4", "INSTANCE_NUM": "7",
    }  # fmt: skip
    assert sluice("deploy", "other", "-f", "sluice.yaml", "--profile-file", "prod.env", "--replicas", "5").exit_code == 0
    assert (sent(stub)["service"], sent(stub)["replicas"]) == ("other", 5)


def test_env_file_sets_only_environment_variables(stub: Stub, sluice: Sluice) -> None:
    Path("prod.env").write_text(PROD)
    assert sluice("deploy", "web", "--env-file", "prod.env").exit_code == 0
    environment = {"APP_NAME": "sample-service", "EXCLUDED_PORTS": "8080,3000", "INSTANCE_NUM": "3"}
    assert sent(stub) == {"service": "web", "environment": environment}


@pytest.mark.parametrize(
    ("name", "profile"), [("local.env", "local"), (".env.prod", "prod"), ("eu-1.prod.env", "eu-1.prod")]
)
def test_profile_is_named_after_its_file(stub: Stub, sluice: Sluice, name: str, profile: str) -> None:
    Path(name).write_text("SPRING_PROFILE=its-own\n")
    assert sluice("deploy", "web", "--profile-file", name).exit_code == 0
    assert sent(stub) == {
        "service": "web", "profile": profile, "profiles": {profile: {"environment": {"SPRING_PROFILE": "its-own"}}}
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "text", "arguments", "words"),
    [
        (".env", PROD, (), "invalid profile name: "),
        ("a b.env", PROD, (), "invalid profile name: "),
        ("prod.env", "INSTANCE_NUM=three", ("web",), "prod.env: INSTANCE_NUM must be numeric"),
        ("prod.env", "INSTANCE_NUM=", ("web",), "INSTANCE_NUM must be numeric"),
        ("prod.env", "EXCLUDED_PORTS=8080-8090", ("web",), "EXCLUDED_PORTS must be numeric"),
        ("prod.env", "A=1", (), "SERVICE is missing"),
        ("prod.env", PROD, ("--profile", "local"), "--profile-file excludes --profile and --no-profile"),
        ("prod.env", PROD, ("--no-profile",), "--profile-file excludes --profile and --no-profile"),
        ("prod.env", PROD, ("-f", "sluice.yaml"), "prod.env is for sample-service, sluice.yaml for web"),
        ("prod.env", PROD, ("-f", "compose.yaml"), "compose.yaml is a Compose file"),
    ],
)
def test_invalid_profile_file_is_refused(
    stub: Stub, sluice: Sluice, name: str, text: str, arguments: tuple[str, ...], words: str
) -> None:
    Path(name).write_text(text)
    if "-f" in arguments:
        Path("sluice.yaml").write_text("service: web\n")
        Path("compose.yaml").write_text("services: {web: {image: x}}\n")
    result = sluice("deploy", "--profile-file", name, *arguments)
    assert (result.exit_code, result.stdout, stub.requests) == (2, "", [])
    assert words in result.stderr


def test_profile_files_switch_a_service_from_prod_to_local_and_back(cli_fixture: CliFixture) -> None:
    Path("prod.env").write_text("APP_NAME=web\nINSTANCE_NUM=2\nONLY_PROD=hunter2\n")
    Path("local.env").write_text("APP_NAME=web\nINSTANCE_NUM=1\n")
    deploy = ("deploy", "--image", "web:1", "--set", "healthcheck.disable=true", "--profile-file")

    def told() -> tuple[int, Mapping[str, str]]:
        service = json.loads(cli_fixture.sluice("status", "web", "--json").stdout)
        started = list(cli_fixture.engine.containers.values())
        return service["replicas"], started[-1].spec.fields.environment

    for file, count, profile in (("prod.env", 2, "prod"), ("local.env", 1, "local"), ("prod.env", 2, "prod")):
        result = cli_fixture.sluice(*deploy, file)
        assert result.exit_code == 0, result.output
        assert "hunter2" not in result.output
        replicas, environment = told()
        assert (replicas, environment["SPRING_PROFILE"]) == (count, profile)
        assert ("ONLY_PROD" in environment) is (profile == "prod")


def test_deploy_command_replaces_the_former_deploy_script(cli_fixture: CliFixture) -> None:
    Path("pom.xml").write_text("<project><artifactId>sample-service</artifactId></project>")
    Path("Dockerfile").write_text("FROM scratch\n")
    Path("prod.env").write_text(PROD)
    assert cli_fixture.sluice("init", "--spring", "--no-ci").exit_code == 0
    result = cli_fixture.sluice(
        "deploy", "--profile-file", "prod.env", "--build", ".", "--set", "healthcheck={disable: true}"
    )
    assert result.exit_code == 0, result.output
    built = [tag for tag in cli_fixture.engine.images if tag.startswith("sample-service:2")]
    started = [container.spec for container in cli_fixture.engine.containers.values()]
    assert [spec.image_id for spec in started] == [cli_fixture.engine.images[built[0]].id] * 3
    for spec in started:
        assert spec.fields.environment["SPRING_PROFILE"] == "prod"
        assert spec.host_port == spec.port
        assert spec.host_port not in (None, 8080, 3000)
    assert len({spec.host_port for spec in started}) == 3
