"""The CLI against Sluice's own API and controller; only the engine and the gateway are fakes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from app.cli.commands.status import PROBLEMS
from services.infrastructure.doctor_findings import wrong
from services.rollouts.state import operational_state
from services.rollouts.state.runtime_status import CRASH_LOOPING
from tests.support.cli_fixture import DEPLOY, CliFixture
from tests.support.fakes.containers import Behaviour

pytestmark = pytest.mark.slow


def test_service_lifecycle_works_from_the_first_deployment_to_removal(cli_fixture: CliFixture) -> None:
    first = cli_fixture.sluice(*DEPLOY)
    assert first.exit_code == 0, first.output
    assert first.stdout.startswith("web deployed: revision 1 (web:1), 2/2 serving, ")
    assert first.stdout.endswith(" s, http://127.0.0.1:8080/web\n")
    assert "web-r1-1  serves" in first.stderr
    assert cli_fixture.sluice("deploy", "web", "--image", "web:1").stdout.startswith("web: nothing to change")
    second = cli_fixture.sluice("deploy", "web", "--image", "web:2", "--note", "3f2a9c1")
    assert second.exit_code == 0, second.output
    assert "web-r1-1  draining: deployment 3 (deploy) replaces it" in second.stderr
    broken = cli_fixture.sluice("deploy", "web", "--image", "web:broken", "--json")
    assert broken.exit_code == 1
    assert json.loads(broken.stdout)["status"] == "rolled_back"
    missing = cli_fixture.sluice("deploy", "web", "--image", "nosuch:1")
    assert missing.exit_code == 1
    assert "image_pull_failed" in missing.stdout
    assert "--build ." not in missing.stderr
    Path("Dockerfile").write_text("FROM scratch\n")
    assert "`sluice deploy --build .`" in cli_fixture.sluice("deploy", "web", "--image", "nosuch:1").stderr
    assert cli_fixture.sluice("scale", "web", "3").stdout.startswith("web scaled: 3/3 serving, ")
    assert cli_fixture.sluice("restart", "web").exit_code == 0
    assert cli_fixture.sluice("rollback", "web").stdout.startswith("web rolled back: revision 1 (web:1)")
    assert len(cli_fixture.sluice("ps", "-q").stdout.split()) == 3
    assert "web-r2-1" in cli_fixture.sluice("ps", "web", "--all").stdout
    assert cli_fixture.sluice("status", "web", "-q").stdout == "serving\n"
    assert "3f2a9c1" in cli_fixture.sluice("history", "web").stdout
    assert cli_fixture.sluice("logs", "web", "--tail", "1").exit_code == 0
    removed = cli_fixture.sluice("rm", "web")
    assert removed.exit_code == 0, removed.output
    assert cli_fixture.sluice("ps").stdout == ""
    assert cli_fixture.engine.running == []


def test_ps_shows_states_and_selects_the_services_with_problems(cli_fixture: CliFixture) -> None:
    assert "No service needs attention." in cli_fixture.sluice("ps", "--problems").stderr
    assert cli_fixture.sluice(*DEPLOY).exit_code == 0
    assert cli_fixture.sluice("deploy", "api", "--image", "web:broken", "--set", "healthcheck.disable=true").exit_code == 1
    services, instances = cli_fixture.sluice("ps").stdout.split("\n\n")
    assert [line.split()[:2] for line in services.splitlines()] == [
        ["SERVICE", "STATE"], ["api", "deployment_failed"], ["web", "serving"],
    ]  # fmt: skip
    assert "web-r1-1" in instances
    problems = json.loads(cli_fixture.sluice("ps", "--problems", "--json").stdout)
    assert [(item["name"], item["state"]) for item in problems["services"]] == [("api", "deployment_failed")]
    assert problems["instances"] == []
    assert [
        item["name"] for item in json.loads(cli_fixture.sluice("ps", "api", "--problems", "--json").stdout)["services"]
    ] == ["api"]
    assert cli_fixture.sluice("ps", "web", "--problems").stdout == ""
    cli_fixture.app.state.sluice.runtime_status.set_warnings("web", [CRASH_LOOPING])
    problems = json.loads(cli_fixture.sluice("ps", "--problems", "--json").stdout)
    assert {item["name"]: item["state"] for item in problems["services"]}["web"] == "crash_looping"
    assert [item["id"] for item in problems["instances"]] == ["web-r1-1", "web-r1-2"]


def test_problems_of_ps_are_those_of_sluice() -> None:
    assert tuple(operational_state.PROBLEMS) == PROBLEMS


def test_deploy_tells_of_an_image_that_was_not_pulled_even_if_nothing_changes(cli_fixture: CliFixture) -> None:
    assert cli_fixture.sluice(*DEPLOY).exit_code == 0
    cli_fixture.engine.unreached = "dial tcp 192.0.2.1:443: i/o timeout"
    again = cli_fixture.sluice("deploy", "web", "--image", "web:1")
    assert again.stdout.startswith("web: nothing to change")
    assert "warning: web:1 was not pulled" in again.stderr and "i/o timeout" in again.stderr
    quiet = cli_fixture.sluice("deploy", "web", "--image", "web:1", "--json")
    assert [each["code"] for each in json.loads(quiet.stdout)["warnings"]] == ["image_not_pulled"]


def test_service_logs_are_followed_through_a_deployment(cli_fixture: CliFixture) -> None:
    for tag in ("1", "2"):
        cli_fixture.engine.behave(f"web:{tag}", Behaviour(log=f"hello\u2028from\x85{tag}"))
    assert cli_fixture.sluice(*DEPLOY[:4], *DEPLOY[6:]).exit_code == 0
    command = [sys.executable, "-c", "from app.cli import main; main()", "logs", "web", "-f"]
    environment = {**os.environ, **cli_fixture.environment, "PYTHONPATH": str(Path(__file__).parents[3])}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "web-r1-1 | hello from1\n", "only a newline ends a line"
        assert cli_fixture.sluice("deploy", "web", "--image", "web:2").exit_code == 0
        assert process.stdout.readline() == "web-r2-1 | hello from2\n"
        process.send_signal(signal.SIGTERM)
        _, stderr = process.communicate(timeout=20)
    assert (process.returncode, stderr) == (130, "")


def test_deployment_is_paused_and_aborted_by_its_service_name(cli_fixture: CliFixture) -> None:
    cli_fixture.sluice(*DEPLOY)
    cli_fixture.sluice("deploy", "web", "--image", "web:2", "--set", "min_ready_seconds=30", "--detach")
    assert cli_fixture.sluice("pause", "web").exit_code == 0
    assert cli_fixture.sluice("status", "web", "--json").exit_code == 0
    aborted = cli_fixture.sluice("abort", "web")
    assert aborted.exit_code == 0, aborted.output
    assert "was aborted (user)" in aborted.stdout
    for verb in ("pause", "resume", "abort"):
        at_rest = cli_fixture.sluice(verb, "web")
        assert at_rest.exit_code == 1
        assert "web has no deployment in progress (latest: 2, aborted)" in at_rest.stderr
    assert json.loads(cli_fixture.sluice("pause", "web", "--json").stdout)["code"] == "not_in_that_state"
    assert cli_fixture.sluice("pause", "2").exit_code == 1
    cli_fixture.sluice("deploy", "web", "--image", "web:2", "--set", "min_ready_seconds=30", "--detach")
    newer = cli_fixture.sluice("deploy", "web", "--image", "web:2", "--set", "min_ready_seconds=0")
    assert newer.exit_code == 0, newer.output
    assert cli_fixture.sluice("status", "3", "--follow").exit_code == 4


def test_refusal_names_the_field_and_the_scope(cli_fixture: CliFixture) -> None:
    typo = cli_fixture.sluice("deploy", "web", "--image", "web:1", "--set", "replicsa=2")
    assert typo.exit_code == 2
    assert '  replicsa: unknown field; did you mean "replicas"?\n' in typo.stderr
    token = cli_fixture.sluice("token", "create", "looker", "--scope", "read").stdout.strip()
    refused = cli_fixture.sluice(*DEPLOY, token=token)
    assert refused.exit_code == 2, refused.output
    assert "sluice token create" in refused.stderr
    assert cli_fixture.sluice("status", "web").exit_code == 2
    stale = cli_fixture.sluice(*DEPLOY, "--expected-revision", "7")
    assert stale.exit_code in (1, 2)
    assert cli_fixture.sluice("sign-in").stdout.startswith(f"{cli_fixture.url}/ui/sign-in?code=")
    assert [row.split()[1] for row in cli_fixture.sluice("token", "list").stdout.splitlines()[1:]] == ["looker", "admin"]


def test_spec_file_of_init_deploys(cli_fixture: CliFixture) -> None:
    assert cli_fixture.sluice("init", "web", "--image", "web:1").exit_code == 0
    result = cli_fixture.sluice("deploy", "--set", "healthcheck.disable=true")
    assert result.exit_code == 0, result.output
    assert result.stdout.endswith("http://127.0.0.1:8080/web\n")


def test_backup_works_while_sluice_runs(cli_fixture: CliFixture) -> None:
    cli_fixture.sluice(*DEPLOY)
    result = cli_fixture.sluice("backup", "copy.db", "--data", str(cli_fixture.settings.data))
    assert result.exit_code == 0, result.output
    assert Path("copy.db").stat().st_size > 0


def test_gateway_and_doctor_commands_work(cli_fixture: CliFixture) -> None:
    assert cli_fixture.sluice("gateway", "upgrade").stdout.startswith("The gateway is up to date")
    assert cli_fixture.sluice("gateway", "upgrade", "--force", "-q").stdout.strip() == "c" * 12
    assert "answers" in cli_fixture.sluice("gateway", "status").stdout
    well = cli_fixture.sluice("doctor")
    assert (well.exit_code, "Docker 27.0" in well.stdout) == (0, True)
    cli_fixture.infrastructure.findings = (wrong("firewall", "refuses", "sudo ufw allow"),)
    unwell = cli_fixture.sluice("doctor")
    assert (unwell.exit_code, "sudo ufw allow" in unwell.stdout) == (1, True)
    assert json.loads(cli_fixture.sluice("doctor", "--json").stdout)["status"] == "unwell"
