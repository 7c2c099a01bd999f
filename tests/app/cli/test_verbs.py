"""Every other verb: its requests and its output."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from app.version import VERSION
from tests.app.cli.conftest import Sluice
from tests.support.api_stub import TOKEN, Stub
from tests.support.cli_scripts import instance, problem


@pytest.mark.parametrize(
    ("arguments", "asked", "sentence"),
    [
        (
            ("scale", "web", "5"),
            ("POST", "/services/web/scale", {"replicas": 5}),
            "web scaled: 2/2 serving, 4.2 s",
        ),
        (("rollback", "web"), ("POST", "/services/web/rollback", {}), "web rolled back: revision 3 (web:1.4), "),
        (
            ("rollback", "web", "--to", "2"),
            ("POST", "/services/web/rollback", {"to_revision": 2}),
            "web rolled back: revision",
        ),
        (("restart", "web"), ("POST", "/services/web/restart", {}), "web restarted: 2/2 serving, 4.2 s"),
        (("rm", "web"), ("DELETE", "/services/web", None), "web removed, 4.2 s"),
    ],
)
def test_changing_verbs_send_their_request_and_follow_the_deployment(
    stub: Stub, sluice: Sluice, arguments: tuple[str, ...], asked: tuple[str, str, object], sentence: str
) -> None:
    result = sluice(*arguments)
    assert result.exit_code == 0, result.stderr
    assert [request.body for request in stub.asked(*asked[:2])] == [asked[2]]
    assert result.stdout.startswith(sentence)
    assert "drained; sending the stop signal" in result.stderr


def test_deployment_actions_accept_its_number_or_its_service(stub: Stub, sluice: Sluice) -> None:
    sluice("deploy", "web", "--image", "web:1.5", "--detach")
    paused = sluice("pause", "web")
    assert (paused.exit_code, paused.stdout) == (0, "web: deployment 17 paused.\n")
    assert "sluice resume 17" in paused.stderr
    stub.deployments[17]["actions"] = ["resume", "abort"]
    assert sluice("resume", "17").exit_code == 0
    late = sluice("abort", "17")
    assert late.exit_code == 1
    assert "allowed: retry" in late.stderr
    assert sluice("abort", "web").exit_code == 1, "as by its number"
    retried = sluice("retry", "17")
    assert retried.exit_code == 0
    assert len(stub.deployments) == 2


def test_abort_exits_0_when_the_deployment_is_aborted(stub: Stub, sluice: Sluice) -> None:
    stub.outcome = "aborted"
    sluice("deploy", "web", "--image", "web:1.5", "--detach")
    result = sluice("abort", "web")
    assert result.exit_code == 0
    assert "was aborted" in result.stdout


def test_ps_shows_services_and_their_running_instances(stub: Stub, sluice: Sluice) -> None:
    furnish(stub)
    result = sluice("ps")
    assert result.exit_code == 0
    services, instances = result.stdout.split("\n\n")
    assert [line.split()[0] for line in services.splitlines()] == ["SERVICE", "api", "web", "worker"]
    assert services.splitlines()[2].split() == ["web", "serving", "2/2", "4", "web:1.5", "http://127.0.0.1:8080/web"]
    assert [line.split()[0] for line in instances.splitlines()] == ["INSTANCE", "web-r4-1", "web-r4-2"]
    assert "web-r3-1" in sluice("ps", "web", "--all").stdout
    assert sluice("ps", "-q").stdout == "web-r4-1\nweb-r4-2\n"
    document = json.loads(sluice("ps", "--json").stdout)
    assert [len(document["services"]), len(document["instances"])] == [3, 2]


def test_ps_says_how_to_deploy_when_nothing_runs(sluice: Sluice) -> None:
    result = sluice("ps")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "sluice deploy NAME" in result.stderr


def test_status_shows_a_service_a_deployment_or_sluice_itself(stub: Stub, sluice: Sluice) -> None:
    stub.outcome = "rolled_back"
    sluice("deploy", "web", "--image", "web:1.5")
    service = sluice("status", "web").stdout
    assert "internal url  http://10.203.0.1:20000" in service
    assert "deployment  17" not in service.splitlines()[0]
    deployment = sluice("status", "17")
    assert deployment.exit_code == 0
    assert "unhealthy_instance" in deployment.stdout
    assert "exit code 1" in deployment.stdout
    assert "| starting up" in deployment.stdout
    assert sluice("status", "17", "--quiet").stdout == "rolled_back\n"
    itself = sluice("status")
    assert itself.exit_code == 0
    assert "9.9.9" in itself.stdout
    parts = {"engine": {"ok": False, "error": "the engine does not answer"}, "gateway": {"ok": True, "pid": 7}}
    stub.problem = (503, {**problem(503, "not_ready", "engine: the engine does not answer"), **parts})
    assert sluice("status").exit_code == 1
    lines = sluice("status").stdout.splitlines()
    assert lines[1:] == ["status   not ready", "engine   the engine does not answer", "gateway  answers, pid 7"]


def test_history_reads_all_pages_and_stops_at_the_limit(stub: Stub, sluice: Sluice) -> None:
    for _ in range(5):
        sluice("deploy", "web", "--image", "web:1.5", "--note", "abc")
    lines = sluice("history", "web").stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["ID", "21", "20", "19", "18", "17"]
    assert lines[1].endswith("abc")
    assert sluice("history", "-n", "3", "-q").stdout == "21\n20\n19\n"
    assert len(json.loads(sluice("history", "--json").stdout)) == 5


def test_logs_of_a_service_prefix_each_line_with_its_instance(stub: Stub, sluice: Sluice) -> None:
    furnish(stub)
    result = sluice("logs", "web", "--tail", "2")
    assert sorted(result.stdout.splitlines()) == ["web-r4-1 | b", "web-r4-1 | c", "web-r4-2 | x"]
    assert sluice("logs", "web-r4-1", "--since", "10m").stdout == "a\nb\nc\n"
    asked = stub.asked("GET", "/instances/web-r4-1/logs")[-1]
    assert asked.query["since"].endswith("Z")
    lines = [json.loads(line) for line in sluice("logs", "web-r4-2", "--json").stdout.splitlines()]
    assert lines == [{"instance": "web-r4-2", "line": "x"}]


def test_logs_follow_of_an_instance_ends_with_the_instance(stub: Stub, sluice: Sluice) -> None:
    furnish(stub)
    assert sluice("logs", "web-r4-1", "-f").stdout == "a\nb\nc\n"
    assert stub.asked("GET", "/instances/web-r4-1/logs")[-1].query["follow"] == "true"


def test_logs_of_a_removed_instance_without_a_log_say_so(stub: Stub, sluice: Sluice) -> None:
    furnish(stub)
    result = sluice("logs", "web-r3-1", "--tail", "1")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "web-r3-1 was removed, and its log with it." in result.stderr


def test_logs_follow_of_an_instance_resumes_after_an_interruption(stub: Stub, sluice: Sluice) -> None:
    furnish(stub)
    stub.faults = ["cut"]
    result = sluice("logs", "web-r4-1", "-f")
    assert result.stdout == "a\na\nb\nc\n"  # the stub repeats a line that an engine asked with `since` would not
    first, second = stub.asked("GET", "/instances/web-r4-1/logs")
    assert "since" not in first.query
    assert second.query["since"].endswith("Z")


def test_logs_follow_of_a_service_resumes_after_an_interruption(stub: Stub, home: Path) -> None:
    furnish(stub)
    stub.faults = ["cut"]
    environment = {**os.environ, "SLUICE_URL": stub.url, "SLUICE_TOKEN": TOKEN, "PYTHONPATH": str(Path(__file__).parents[3])}
    command = [sys.executable, "-c", "from app.cli import main; main()", "logs", "web", "-f"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(4)]
        process.send_signal(signal.SIGINT)
        rest, stderr = process.communicate(timeout=20)
    assert lines == ["web-r4-1 | a\n", "web-r4-1 | b\n", "web-r4-1 | c\n", "web-r4-2 | x\n"]
    assert (process.returncode, rest, stderr) == (130, "", "")
    first, second = stub.asked("GET", "/services/web/logs")
    assert "last-event-id" not in first.headers
    assert second.headers["last-event-id"] == "2026-11-24T20:00:00.000000000Z"
    assert len(stub.asked("GET", "/instances")) == 1, "there must be no polling"


def test_logs_of_an_unknown_target_exit_2_and_suggest_ps(stub: Stub, sluice: Sluice) -> None:
    assert sluice("logs", "nothing").exit_code == 2
    assert "sluice ps" in sluice("logs", "web-r9-9").stderr


def test_token_commands_create_list_and_revoke(stub: Stub, sluice: Sluice) -> None:
    made = sluice("token", "create", "ci", "--scope", "deploy")
    assert made.stdout == "sl_secret\n"
    assert "not shown again" in made.stderr
    assert stub.asked("POST", "/tokens")[0].body == {"name": "ci", "scope": "deploy"}
    assert sluice("token", "list").stdout.splitlines()[1].split()[:3] == ["1", "ci", "deploy"]
    sluice("token", "create", "ada", "--scope", "write", "--service", "web", "--expires-in", "2d")
    asked = stub.asked("POST", "/tokens")[1].body
    assert asked == {"name": "ada", "scope": "write", "services": ["web"], "expires_in": 172800}
    sluice("token", "revoke", "2")
    assert sluice("token", "revoke", "1").stdout == "Token 1 revoked.\n"
    assert json.loads(sluice("token", "list", "--json").stdout) == []


def test_sign_in_prints_only_the_link(stub: Stub, sluice: Sluice) -> None:
    assert sluice("sign-in").stdout == f"{stub.url}/ui/sign-in?link=once\n"


def test_version_shows_client_and_server_and_works_without_a_server(stub: Stub, sluice: Sluice) -> None:
    assert sluice("version").stdout == f"sluice {VERSION}\nserver 9.9.9 at {stub.url}\n"
    assert sluice("--version").stdout == f"sluice {VERSION}\n"
    alone = sluice("version", "--json", env={"SLUICE_URL": "http://127.0.0.1:1"})
    assert alone.exit_code == 0
    assert json.loads(alone.stdout) == {"version": VERSION, "server": None}


def test_backup_is_a_complete_database_that_only_its_owner_can_read(sluice: Sluice, home: Path) -> None:
    database = sqlite3.connect(home / "sluice.db")
    database.execute("PRAGMA journal_mode=WAL")
    database.execute("CREATE TABLE t (x)")
    database.execute("INSERT INTO t VALUES (1)")
    database.commit()
    result = sluice("backup", "copy.db", "--data", str(home), "--json")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["bytes"] == Path("copy.db").stat().st_size
    assert Path("copy.db").stat().st_mode & 0o777 == 0o600
    copy = sqlite3.connect("copy.db")
    assert copy.execute("SELECT x FROM t").fetchall() == [(1,)]
    copy.close()
    database.close()
    assert sluice("backup", "copy.db", "--data", str(home)).exit_code == 2
    assert sluice("backup", "other.db", "--data", str(home / "nowhere")).exit_code == 2
    nowhere = sluice("backup", "copy.db/copy.db", "--data", str(home))
    assert nowhere.exit_code == 1
    assert "Check that copy.db is writable" in nowhere.stderr
    assert sluice("backup", "x" * 300, "--data", str(home)).exit_code == 1
    assert sorted(path.name for path in Path.cwd().iterdir()) == ["copy.db"]


def test_backup_of_a_damaged_database_fails_without_a_file(sluice: Sluice, home: Path) -> None:
    (home / "sluice.db").write_bytes(b"this is no database" * 100)
    result = sluice("backup", "copy.db", "--data", str(home))
    assert result.exit_code == 1
    assert "could not be copied" in result.stderr
    assert not Path("copy.db").exists()


def furnish(stub: Stub) -> None:
    """Add three services; `web` has two running instances and one that failed."""
    stub.services = {name: stub.service(name) for name in ("api", "web", "worker")}
    stub.instances = {
        "web-r4-2": instance("web-r4-2", "web", 4, "serving"),
        "web-r4-1": instance("web-r4-1", "web", 4, "serving"),
        "web-r3-1": instance("web-r3-1", "web", 3, "failed"),
    }
    stub.logs = {"web-r4-1": ["a", "b", "c"], "web-r4-2": ["x"]}
