"""`sluice diff` shows the changes and steps of a deployment, or the difference of two revisions; it deploys nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.app.cli.conftest import Sluice
from tests.support.api_stub import Stub
from tests.support.cli_fixture import DEPLOY, CliFixture


def test_diff_of_a_new_image_shows_every_step(cli_fixture: CliFixture) -> None:
    cli_fixture.sluice(*DEPLOY, "--env", "OLD=x")
    result = cli_fixture.sluice("diff", "web", "--image", "web:2", "--env", "LEVEL=debug", "--set", "environment.OLD=null")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0] == "web: revision 1 → 2; starts 2 instances, then drains and removes 2"
    assert "  ~ image              web:1 → web:2" in lines
    assert "  + environment.LEVEL  debug" in lines
    assert "  - environment.OLD    x" in lines
    steps = lines[lines.index("") + 1 :][:5]
    assert steps[:2] == ["  1  start     web-r2-1, web-r2-2", "  2  admit     web-r2-1, web-r2-2"]
    assert [line.split()[1] for line in steps[2:]] == ["withdraw", "stop", "remove"]
    assert lines[-1].startswith("warning: web:2 is not on this host yet")
    assert cli_fixture.sluice("history", "-q").stdout == "1\n"


def test_diff_of_a_file_compares_the_whole_spec(cli_fixture: CliFixture) -> None:
    cli_fixture.sluice(*DEPLOY, "--set", "max_surge=1")
    Path("sluice.yaml").write_text("service: web\nimage: web:1\nhealthcheck: {disable: true}\nreplicas: 3\n")
    result = cli_fixture.sluice("diff")
    assert result.stdout.splitlines()[0] == "web: revision 1 → 2; starts 1 instance"
    assert "  - max_surge  1" in result.stdout and "  ~ replicas   2 → 3" in result.stdout


def test_diff_without_changes_prints_one_line(cli_fixture: CliFixture) -> None:
    cli_fixture.sluice(*DEPLOY)
    assert cli_fixture.sluice("diff", "web", "--image", "web:1").stdout == "web: revision 1; nothing to change\n"


def test_diff_compares_two_revisions_or_one_with_the_current(cli_fixture: CliFixture) -> None:
    cli_fixture.sluice(*DEPLOY)
    cli_fixture.sluice("deploy", "web", "--image", "web:2")
    cli_fixture.sluice("deploy", "web", "--set", "max_surge=1")
    between = cli_fixture.sluice("diff", "web", "--from", "1", "--to", "2").stdout.splitlines()
    assert between[0] == "web: revision 1 → 2; instances are replaced"
    assert "  ~ image     web:1 → web:2" in between
    assert cli_fixture.sluice("diff", "web", "--from", "2").stdout == "web: revision 2 → 3\n  + max_surge  1\n"
    assert cli_fixture.sluice("diff", "web", "--to", "3").stdout == "web: revision 3 → 3\n  no difference\n"
    missing = cli_fixture.sluice("diff", "web", "--to", "9")
    assert missing.exit_code == 2 and "sluice history" in missing.stderr


def test_diff_prints_the_answer_of_the_api_with_json(cli_fixture: CliFixture) -> None:
    cli_fixture.sluice(*DEPLOY)
    document = json.loads(cli_fixture.sluice("diff", "web", "--image", "web:2", "--json").stdout)
    assert document["replaces_instances"] and document["steps"][0]["action"] == "start"
    assert cli_fixture.sluice("diff", "web", "--image", "web:2", "-q").stdout == "image\nimage_id\n"


def test_diff_of_a_compose_file_compares_each_service(cli_fixture: CliFixture) -> None:
    cli_fixture.sluice(*DEPLOY)
    services = "{web: {image: 'web:2'}, api: {image: 'web:1', x-sluice: {healthcheck: {disable: true}}}}"
    Path("compose.yaml").write_text(f"name: shop\nservices: {services}\n")
    result = cli_fixture.sluice("diff", "-f", "compose.yaml")
    assert result.exit_code == 0, result.output
    heads = {line.split(";")[0] for line in result.stdout.splitlines() if "revision" in line}
    assert heads == {"web: revision 1 → 2", "api: revision 1"}
    assert cli_fixture.sluice("diff", "-f", "compose.yaml", "--only", "api", "-q").stdout == "api\n"
    assert len(json.loads(cli_fixture.sluice("diff", "-f", "compose.yaml", "--json").stdout)["previews"]) == 2
    assert cli_fixture.sluice("diff", "-f", "compose.yaml", "--image", "web:1").exit_code == 2
    assert cli_fixture.sluice("history", "-q").stdout == "1\n"


def test_diff_prints_concurrent_steps_of_many_instances_on_one_line(cli_fixture: CliFixture) -> None:
    result = cli_fixture.sluice("diff", "web", "--image", "web:1", "--replicas", "30")
    assert "  1  start     web-r1-1, web-r1-2 … web-r1-30 (30 instances)" in result.stdout


def test_diff_is_refused_with_the_same_error_as_the_deployment(cli_fixture: CliFixture) -> None:
    refused = cli_fixture.sluice("diff", "web", "--image", "web:1", "--set", "replicsa=2")
    assert refused.exit_code == 2 and 'did you mean "replicas"?' in refused.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("diff",), "SERVICE is missing"),
        (("diff", "web"), "nothing to compare"),
        (("diff", "--from", "3"), "SERVICE is missing"),
    ],
)
def test_diff_usage_error_says_what_to_type(stub: Stub, sluice: Sluice, arguments: tuple[str, ...], words: str) -> None:
    result = sluice(*arguments)
    assert result.exit_code == 2
    assert words in result.stderr and "sluice d" in result.stderr
    assert stub.requests == []
