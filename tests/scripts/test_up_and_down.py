"""`make up`, `env` and `down` on a real engine: what exists afterwards, and what stays untouched."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.docker_cli import EngineFault, docker
from tests.support.shell import Shell

pytestmark = pytest.mark.docker


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Shell]:
    other = Shell(tmp_path / "other", more={"SLUICE_KEEP_IMAGES": "1"})
    yield other
    other.clean()


def there(kind: str, name: str) -> bool:
    try:
        docker(kind, "inspect", name)
    except EngineFault:
        return False
    return True


def test_up_starts_sluice_env_prints_its_url_and_down_leaves_nothing(shell: Shell) -> None:
    shell.up()
    assert shell.ready()["status"] == "ready"
    reported = shell.environment()
    assert reported["SLUICE_URL"] == f"http://127.0.0.1:{shell.port}"
    assert reported["SLUICE_GATEWAY"] == f"http://127.0.0.1:{shell.gateway_port}"
    log = subprocess.run(
        ["docker", "logs", shell.name], check=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert reported["SLUICE_TOKEN"] not in log.stdout
    assert f"{shell.data}/admin.token" in log.stdout
    hello = {
        "service": "hello",
        "image": "hello:1",
        "replicas": 2,
        "healthcheck": {"path": "/healthz"},
        "volumes": [{"type": "volume", "source": f"{shell.name}-orders", "target": "/data", "shared": True}],
    }
    bearer = {"Authorization": f"Bearer {reported['SLUICE_TOKEN']}"}
    done = httpx.post(f"{reported['SLUICE_URL']}/deployments", params={"wait": 60}, json=hello, headers=bearer, timeout=70)
    assert done.status_code == 200, done.text
    assert httpx.get(f"{reported['SLUICE_GATEWAY']}/hello").text.startswith("Hello from hello-r1-")
    eureka = f"{shell.name}-their-eureka"  # As demo-spring runs a Eureka server beside Sluice.
    docker("run", "--detach", "--name", eureka, "--network", shell.name, "--label", "sluice.made=demo", "hello:1")

    removed = shell.make("down")

    assert removed.returncode == 0, removed.stderr
    assert f"removed container {shell.name}-hello-r1-1" in removed.stdout
    assert docker("ps", "--all", "--quiet", "--filter", f"label=sluice.name={shell.name}") == ""
    assert not there("container", eureka)
    assert not there("network", shell.name)
    assert not there("volume", f"{shell.name}-orders")
    assert not shell.data.exists()


def test_repeated_up_changes_nothing_and_a_new_setting_replaces_only_sluice(shell: Shell) -> None:
    shell.up()
    sluice, gateway = shell.id_of(shell.name), shell.id_of(f"{shell.name}-gateway")
    token = shell.environment()["SLUICE_TOKEN"]
    shell.up()
    assert shell.id_of(shell.name) == sluice
    shell.more["SLUICE_LOG_LEVEL"] = "warning"
    shell.up()
    assert shell.id_of(shell.name) != sluice
    assert shell.id_of(f"{shell.name}-gateway") == gateway
    assert shell.environment()["SLUICE_TOKEN"] == token


def test_down_of_one_sluice_keeps_the_other(shell: Shell, other: Shell) -> None:
    shell.up()
    other.up()
    assert shell.make("down").returncode == 0
    assert other.ready()["status"] == "ready"
    assert there("container", f"{other.name}-gateway")


def test_down_keeps_foreign_containers_and_files(shell: Shell) -> None:
    shell.up()
    (shell.data / "notes").write_text("mine")
    label, instance = f"sluice.name={shell.name}", "sluice.instance=web-r1-1"
    stranger = docker("run", "--detach", "--rm", "--label", label, "--label", instance, "hello:1")
    lookalike = docker("run", "--detach", "--rm", "--name", f"{shell.name}-web-r1-1", "hello:1")
    eureka = docker("run", "--detach", "--rm", "--name", f"{shell.name}-their-eureka", "hello:1")
    try:
        assert shell.make("down").returncode == 0
        assert there("container", stranger)
        assert there("container", lookalike)
        assert there("container", eureka), "the demo labels its own"
        assert [path.name for path in shell.data.iterdir()] == ["notes"]
    finally:
        docker("rm", "--force", stranger, lookalike, eureka)


def test_foreign_container_with_sluices_name_is_left_alone(shell: Shell) -> None:
    stranger = docker("run", "--detach", "--rm", "--name", shell.name, "hello:1")
    try:
        done = shell.sluice("up")
        assert done.returncode == 1
        assert "is not from Sluice" in done.stderr
        assert shell.make("down").returncode != 0
        assert shell.id_of(shell.name) == stranger
    finally:
        docker("rm", "--force", stranger)


@pytest.mark.parametrize("variable", ["SLUICE_PORT", "SLUICE_GATEWAY_PORT"])
def test_taken_port_is_reported_before_anything_starts(shell: Shell, variable: str) -> None:
    port = shell.port if variable == "SLUICE_PORT" else shell.gateway_port
    with socket.create_server(("127.0.0.1", port)):
        done = shell.sluice("up")
    assert done.returncode == 1
    assert f"Port {port}" in done.stderr
    assert variable in done.stderr
    assert not there("container", shell.name)


def test_invalid_setting_is_reported_before_anything_starts(shell: Shell) -> None:
    shell.more["SLUICE_MAXCONN"] = "many"
    done = shell.sluice("up")
    assert done.returncode == 2
    assert "SLUICE_MAXCONN" in done.stderr
    assert not there("container", shell.name)


def test_up_reports_why_sluice_cannot_start(shell: Shell) -> None:
    shell.data.mkdir()
    (shell.data / "sluice.db").write_text("no database")
    done = shell.sluice("up")
    assert done.returncode == 1
    assert "exits at every start" in done.stderr
    assert "corrupt" in done.stderr


def test_env_without_a_running_sluice_suggests_make_up(shell: Shell) -> None:
    done = shell.make("env")
    assert done.returncode != 0
    assert done.stdout == ""
    assert "make up" in done.stderr
