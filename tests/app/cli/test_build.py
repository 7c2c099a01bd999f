"""`sluice build` and `sluice deploy --build` against Sluice's own API; the engine is a fake that reads the Dockerfile."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from services.engine.docker.build_context import pack
from tests.support.cli_fixture import CliFixture

HELLO = "FROM scratch\nARG WORD\nRUN echo $WORD\n"
NO_CHECK = ("--set", "healthcheck.disable=true")
TAG = re.compile(r"web:\d{8}-\d{6}-[0-9a-f]{4}")


@pytest.fixture
def app(home: Path) -> Path:
    """Provide a directory with a Dockerfile, beside the working directory of the command."""
    directory = home / "app"
    directory.mkdir()
    (directory / "Dockerfile").write_text(HELLO)
    return directory


def test_deploy_with_build_builds_deploys_and_follows(cli_fixture: CliFixture, app: Path) -> None:
    result = cli_fixture.sluice("deploy", "web", "--build", str(app), "--build-arg", "WORD=hello there", *NO_CHECK)
    assert result.exit_code == 0, result.output
    assert TAG.search(result.stdout) and "web deployed: revision 1" in result.stdout
    reported = result.stderr.splitlines()
    assert "hello there" in reported and reported.index("hello there") < next(
        n for n, line in enumerate(reported) if "serves" in line
    )
    again = cli_fixture.sluice("deploy", "web", "--build", str(app))
    assert again.exit_code == 0 and "web deployed: revision 2" in again.stdout


def test_build_prints_its_image(cli_fixture: CliFixture, app: Path) -> None:
    made = cli_fixture.sluice("build", "web", str(app), "--quiet")
    assert made.exit_code == 0, made.output
    assert TAG.fullmatch(made.stdout.strip()) and made.stdout.strip() in cli_fixture.engine.images
    (app / "Dockerfile").rename(app / "Other")
    other = cli_fixture.sluice("build", "web", str(app), "--dockerfile", "Other", "--target", "run", "--json")
    assert json.loads(other.stdout)["target"] == "run"
    assert cli_fixture.engine.containers == {}


def test_failed_build_deploys_nothing_and_shows_its_log(cli_fixture: CliFixture, app: Path) -> None:
    (app / "Dockerfile").write_text("FROM scratch\nRUN echo the last words\nRUN false\n")
    failed = cli_fixture.sluice("deploy", "web", "--build", str(app), "--quiet", *NO_CHECK)
    assert failed.exit_code == 1
    assert "returned a non-zero code: 1" in failed.stderr and "the last words" in failed.stderr
    assert "Nothing was deployed." in failed.stderr
    assert cli_fixture.engine.containers == {}
    as_json = cli_fixture.sluice("deploy", "web", "--build", str(app), "--json", *NO_CHECK)
    assert json.loads(as_json.stdout)["build"]["reason"] == "build_failed"


def test_build_continues_after_ctrl_c_and_is_cancelled_by_its_number(cli_fixture: CliFixture, app: Path) -> None:
    (app / "Dockerfile").write_text("FROM scratch\nRUN echo begun\nRUN sleep 600\n")
    command = [sys.executable, "-c", "from app.cli import main; main()", "deploy", "web", "--build", str(app), *NO_CHECK]
    environment = {**os.environ, **cli_fixture.environment, "PYTHONPATH": str(Path(__file__).parents[3])}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        reported = iter(process.stderr.readline, "")
        assert "Build 1: " in next(line for line in reported if line.startswith("Build "))
        assert "begun\n" in reported
        process.send_signal(signal.SIGINT)
        last = process.stderr.read()
        assert process.wait(20) == 130
    assert "interrupted; build 1 of web continues, and nothing is deployed" in last
    assert "Cancel it with `sluice build --cancel 1`, or see" in last
    given_up = cli_fixture.sluice("build", "--cancel", "1")
    assert (given_up.exit_code, given_up.stdout) == (0, "web: build 1 cancelled.\n")
    assert cli_fixture.engine.containers == {}
    again = cli_fixture.sluice("build", "--cancel", "1", "--json")
    assert (again.exit_code, json.loads(again.stdout)["code"]) == (1, "not_in_that_state")
    assert "/ui/builds/1" in cli_fixture.sluice("build", "--cancel", "1").stderr
    assert cli_fixture.sluice("build", "--cancel", "7").exit_code == 2
    for wrong in ((), ("web", "--cancel", "1"), ("--cancel", "0")):
        assert cli_fixture.sluice("build", *wrong).exit_code == 2


def test_build_options_override_the_build_section_of_the_file(cli_fixture: CliFixture, app: Path) -> None:
    (app / "sub").mkdir()
    (app / "sub" / "Dockerfile").write_text(HELLO)
    file = app / "sluice.yaml"
    spec = "service: web\nhealthcheck: {disable: true}\n"
    file.write_text(spec + "build: {context: sub, args: {WORD: from the file}}\n")
    result = cli_fixture.sluice("deploy", "-f", str(file))
    assert result.exit_code == 0, result.output
    assert "from the file" in result.stderr.splitlines()
    typed = cli_fixture.sluice("deploy", "-f", str(file), "--build-arg", "WORD=typed")
    assert "typed" in typed.stderr.splitlines()
    built = len(cli_fixture.engine.built)
    image = cli_fixture.sluice("deploy", "-f", str(file), "--image", "web:1")
    assert image.exit_code == 0 and "web:1" in image.stdout and len(cli_fixture.engine.built) == built
    assert cli_fixture.sluice("diff", "-f", str(file)).exit_code == 2
    assert cli_fixture.sluice("diff", "-f", str(file), "--image", "web:2").exit_code == 0
    file.write_text(spec + "build: .\n")
    assert cli_fixture.sluice("deploy", "-f", str(file)).exit_code == 0


@pytest.mark.parametrize(
    ("yaml", "arguments", "why"),
    [
        ("", ("--build", "nowhere"), "nowhere is not a directory"),
        ("", ("--build", "."), "Dockerfile not found"),
        ("", ("--build", "../app", "--image", "web:1"), "exclude each other"),
        ("", ("--target", "run"), "there is nothing to build"),
        ("build: ../app\nimage: web:1\n", (), "exclude each other"),
        ("build: {contxt: ../app}\n", (), "unknown key build.contxt"),
        ("build: 5\n", (), "build must be a directory"),
        ("build: {context: ../app, args: [A=b]}\n", (), "build.args must be a mapping"),
    ],
)
def test_invalid_build_options_are_refused_before_any_request(
    cli_fixture: CliFixture, app: Path, yaml: str, arguments: tuple[str, ...], why: str
) -> None:
    Path("sluice.yaml").write_text(f"service: web\n{yaml}")
    refused = cli_fixture.sluice("deploy", "-f", "sluice.yaml", *arguments)
    assert (refused.exit_code, why in refused.stderr) == (2, True), refused.output
    assert cli_fixture.engine.built == set()


def test_link_that_leads_out_of_the_build_context_is_refused_by_name(cli_fixture: CliFixture, app: Path) -> None:
    (app / "passwords").symlink_to("/etc/passwd")
    refused = cli_fixture.sluice("build", "web", str(app))
    assert refused.exit_code == 2 and '"passwords" is a link that leads out' in refused.stderr
    (app / ".dockerignore").write_text("# ours\n\npasswords\n")
    assert cli_fixture.sluice("build", "web", str(app)).exit_code == 0


def test_dockerignore_excludes_files_but_never_the_dockerfile(app: Path, tmp_path: Path) -> None:
    for name in ("kept", "secret.env", "deep/secret.env", "deep/kept", "exception.env"):
        (app / name).parent.mkdir(exist_ok=True)
        (app / name).write_text(name)
    (app / ".dockerignore").write_text("**/*.env\n!exception.env\nDockerfile\n")
    with (tmp_path / "context").open("w+b") as file:
        pack(app, "Dockerfile", file)
    with tarfile.open(tmp_path / "context") as tar:
        assert sorted(tar.getnames()) == [".dockerignore", "Dockerfile", "deep", "deep/kept", "exception.env", "kept"]
