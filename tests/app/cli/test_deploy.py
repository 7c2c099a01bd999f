"""`sluice deploy` follows a deployment to its end: its output, and the exit code of each result."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from tests.app.cli.conftest import Sluice
from tests.support.api_stub import Stub
from tests.support.cli_scripts import problem

DEPLOY = ("deploy", "web", "--image", "web:1.5")


def test_successful_deployment_prints_each_event_and_one_result_sentence(sluice: Sluice) -> None:
    result = sluice(*DEPLOY, "--note", "3f2a9c1")
    assert result.exit_code == 0
    sentence = "web deployed: revision 4 (web:1.5), 2/2 serving, 4.2 s, http://127.0.0.1:8080/web\n"
    assert result.stdout == sentence
    reported = [line.split(" s  ", 1)[1] for line in result.stderr.splitlines()]
    new = [f"web-r4-{n}  {words}" for words in ("started at 10.203.0.15", "is ready", "serves") for n in (1, 2)]
    assert reported[:6] == new
    assert reported[6].startswith("web-r3-1  draining: no new requests, 2 requests in flight")
    assert reported[7:] == ["web-r3-1  drained; sending the stop signal", "web-r3-1  removed"]


def test_output_without_a_terminal_has_no_escape_sequences(sluice: Sluice) -> None:
    assert "\x1b" not in sluice(*DEPLOY).output


def test_json_output_is_the_only_text_on_stdout(sluice: Sluice) -> None:
    result = sluice(*DEPLOY, "--json")
    document = json.loads(result.stdout)
    assert (document["id"], document["status"]) == (17, "succeeded")


def test_quiet_deploy_prints_only_the_deployment_number(sluice: Sluice) -> None:
    result = sluice(*DEPLOY, "--quiet")
    assert (result.stdout, result.stderr) == ("17\n", "")


@pytest.mark.parametrize(
    ("outcome", "code", "words"),
    [
        ("unchanged", 0, "web: nothing to change; revision 4 stays."),
        ("rolled_back", 1, "failed and was rolled back (unhealthy_instance): web-r4-1 exited with 1."),
        ("failed", 1, "web: deployment 17 failed (unhealthy_instance): web-r4-1 exited with 1."),
        ("rollback_failed", 1, "rollback failed too"),
        ("aborted", 1, "was aborted (user): aborted by ci."),
        ("paused", 1, "is paused (unhealthy_instance)"),
        ("superseded", 4, "superseded by deployment 18."),
    ],
)
def test_deployment_result_determines_the_exit_code_and_the_sentence(
    stub: Stub, sluice: Sluice, outcome: str, code: int, words: str
) -> None:
    stub.outcome = outcome
    result = sluice(*DEPLOY)
    assert result.exit_code == code
    assert words in result.stdout
    assert len(result.stdout.splitlines()) == 1


def test_failed_instance_shows_its_log_tail_without_control_characters(stub: Stub, sluice: Sluice) -> None:
    stub.outcome = "rolled_back"
    stderr = sluice(*DEPLOY).stderr
    assert "web-r4-1  failed: exited with code 1\n" in stderr
    assert "web-r4-1  end of its log:\n         | starting up\n" in stderr
    assert "| KeyError: 'DATABASE_URL'" in stderr
    assert "\x1b" not in stderr
    assert "sluice retry 17" in stderr


def test_pause_by_failure_action_suggests_resume_or_abort(stub: Stub, sluice: Sluice) -> None:
    stub.outcome = "paused"
    stderr = sluice(*DEPLOY).stderr
    assert "sluice resume 17" in stderr
    assert "sluice abort 17" in stderr


def test_detached_deploy_says_how_to_follow_it(stub: Stub, sluice: Sluice) -> None:
    result = sluice(*DEPLOY, "--detach")
    assert result.exit_code == 0
    assert result.stdout == "web: deployment 17 accepted.\n"
    assert "sluice status 17 --follow" in result.stderr
    assert stub.deployments[17]["status"] == "progressing"
    assert sluice("status", "17", "--follow").exit_code == 0


def test_deploy_options_become_the_request_body(stub: Stub, sluice: Sluice) -> None:
    Path("vars.env").write_text("# a comment\nA=1\nB=with = sign\nFROM_HERE\n")
    result = sluice(
        "deploy", "web", "--image", "web:1.5", "--port", "8000", "--replicas", "3", "--env-file", "vars.env", "--env", "A=2",
        "--route", "example.org/api,strip", "--set", "healthcheck.path=/healthz", "--set", "stop_signal=null",
        "--profile", "prod", "--note", "abc", "--expected-revision", "3", env={"FROM_HERE": "yes"},
    )  # fmt: skip
    assert result.exit_code == 0, result.stderr
    assert stub.asked("POST", "/deployments")[0].body == {
        "service": "web", "image": "web:1.5", "port": 8000, "replicas": 3, "note": "abc", "expected_revision": 3,
        "profile": "prod", "environment": {"A": "2", "B": "with = sign", "FROM_HERE": "yes"}, "stop_signal": None,
        "routes": [{"host": "example.org", "path_prefix": "/api", "strip_prefix": True}],
        "healthcheck": {"path": "/healthz"},
    }  # fmt: skip


def test_spec_file_is_the_whole_spec_and_arguments_override_it(stub: Stub, sluice: Sluice) -> None:
    Path("sluice.yaml").write_text("service: web\nimage: web:1.4\nport: 8000\nenvironment: {A: 1}\n")
    assert sluice("deploy", "--image", "web:1.5", "-e", "B=2").exit_code == 0
    assert sluice("deploy", "-f", "sluice.yaml", "--mode", "merge").exit_code == 0
    assert sluice("deploy", "other", "-f", "-", stdin="service: web\nimage: web:1.6\n").exit_code == 0
    first, second, third = [request.body for request in stub.asked("POST", "/deployments")]
    environment = {"A": 1, "B": "2"}
    assert first == {"service": "web", "image": "web:1.5", "port": 8000, "environment": environment, "mode": "replace"}
    assert second["mode"] == "merge"
    assert third == {"service": "other", "image": "web:1.6", "mode": "replace"}


def test_replicas_of_the_profile_override_the_file_and_options_override_both(stub: Stub, sluice: Sluice) -> None:
    Path("sluice.yaml").write_text("service: web\nimage: web:1\nreplicas: 3\nprofiles: {prod: {replicas: 6}, local: {}}\n")
    for given in (("--profile", "prod"), ("--profile", "local"), ("--profile", "prod", "--replicas", "2")):
        assert sluice("deploy", *given).exit_code == 0
    assert [request.body.get("replicas") for request in stub.asked("POST", "/deployments")] == [None, 3, 2]


def test_refused_spec_is_printed_field_by_field(stub: Stub, sluice: Sluice) -> None:
    result = sluice(*DEPLOY, "--set", "replica=2", "--set", "healthcheck.retries=0")
    assert result.exit_code == 2
    assert result.stdout == ""
    assert '\n  replica: unknown field; did you mean "replicas"?\n' in result.stderr
    assert "\n  healthcheck.retries: must be at least 1\n" in result.stderr
    assert stub.deployments == {}


def test_refusal_with_json_prints_the_problem_document(sluice: Sluice) -> None:
    result = sluice(*DEPLOY, "--set", "replica=2", "--json")
    assert json.loads(result.stdout)["errors"][0]["field"] == "replica"


def test_revision_conflict_exits_1(stub: Stub, sluice: Sluice) -> None:
    stub.problem = (409, problem(409, "revision_conflict", "the current revision is 4, not 3"))
    result = sluice(*DEPLOY, "--expected-revision", "3")
    assert result.exit_code == 1
    assert "the current revision is 4, not 3" in result.stderr
    assert "sluice status" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("deploy",), "SERVICE is missing"),
        (("deploy", "-f", "missing.yaml"), "missing.yaml cannot be read"),
        (("deploy", "web", "--env", "=2"), "--env: invalid variable name ''"),
        (("deploy", "web", "--set", "port"), "--set 'port' is not field=value"),
        (("deploy", "web", "--route", "/a,b"), "invalid --route '/a,b'"),
        (("deploy", "web", "--replicas", "many"), "replicas"),
        (("deploy", "web", "--imag", "x"), "--imag"),
        (("deploy", "web", "--image", "a", "--image", "b"), "--image is given 2 times: it takes one value"),
        (("deploy", "-f", "sluice.yaml", "--profile", "a", "--profile=b"), "--profile is given 2 times"),
        (("history", "-n", "1", "--limit", "2"), "--limit is given 2 times"),
        (("--url", "http://a", "ps", "--url", "http://b"), "--url"),
        (("ps", "--url", "http://a", "--url", "http://b"), "--url is given 2 times"),
        (("rollback", "web", "--to", "1", "--to-revision", "2"), "--to-revision is given 2 times"),
        (("token", "create", "x", "--scope", "read", "--scope", "admin"), "--scope is given 2 times"),
        (("deploy", "web", "--env", "DB_URL"), "--env DB_URL: DB_URL is not set in this environment"),
        (("deploy", "web", "-e", "A=1", "--env", "A=2"), "--env A is given twice"),
        (("deploy", "web", "--build", ".", "--build-arg", "VERSION"), "--build-arg VERSION: VERSION is not set"),
        (("build", "web", ".", "--build-arg", "V=1", "--build-arg", "V=2"), "--build-arg V is given twice"),
        (("deploy", "web", "--set", "port=1", "--set", "port=2"), "--set port and --set port exclude each other"),
        (("diff", "web", "--set", "a.b=1", "--set", "a=null"), "--set a and --set a.b exclude each other"),
        (("launch",), "launch"),
        (("scale", "web"), "replicas"),
        (("scale", "web", "101"), "100"),
        (("logs", "web", "--since", "yesterday"), "neither a time nor a duration"),
    ],
)  # fmt: skip
def test_usage_error_exits_2_and_says_what_is_wrong(
    stub: Stub, sluice: Sluice, arguments: tuple[str, ...], words: str
) -> None:
    Path("Dockerfile").write_text("FROM scratch\n")
    result = sluice(*arguments)
    assert result.exit_code == 2
    stderr = " ".join(result.stderr.replace("│", " ").split())  # Typer wraps its messages in a box
    assert words in stderr.lower() or words in stderr
    assert result.stdout == ""
    assert stub.requests == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("service: web\nport: [1\n", "is not YAML: "),
        ("- web\n", "not a mapping of fields"),
        ("image: web:1\n", "service is missing"),
        ("service: web\nenvironment:\n  DAY: 2026-01-01\n", "environment.DAY: YAML reads '2026-01-01' as a date"),
        ("service: web\nenvironment:\n  1: x\n", "environment: the name 1 is not text"),
        ("service: web\ndrain_timeout: .inf\n", "drain_timeout: inf is not a finite number"),
        ("service: web\ncommand: &a [*a]\n", "nested too deeply"),
    ],
)
def test_invalid_spec_file_is_refused_by_field_or_line(stub: Stub, sluice: Sluice, text: str, words: str) -> None:
    Path("sluice.yaml").write_text(text)
    result = sluice("deploy", "-f", "sluice.yaml")
    assert result.exit_code == 2
    assert words in result.stderr
    assert stub.requests == []


def test_registry_credentials_come_from_the_environment(stub: Stub, sluice: Sluice) -> None:
    sluice("deploy", "web", "--image", "registry.example.org/web:1", env={"SLUICE_REGISTRY_AUTH": "ci:s3cret"})
    header = stub.asked("POST", "/deployments")[0].headers["x-registry-auth"]
    expected = {"username": "ci", "password": "s3cret", "serveraddress": "registry.example.org"}
    assert json.loads(base64.urlsafe_b64decode(header)) == expected
