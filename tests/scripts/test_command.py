"""scripts/sluice, which runs the command in a container: the user's variables reach the command."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_variables_of_the_user_reach_the_command_by_name_and_those_of_the_host_do_not(tmp_path: Path) -> None:
    docker = tmp_path / "docker"
    docker.write_text("#!/bin/sh\nprintf '%s\\n' \"$@\"\n")
    docker.chmod(0o755)
    given = {"DB_URL": "hunter2", "COMPOSE_PROFILES": "a", "LC_ALL": "C", "PYTHONPATH": "/x", "DOCKER_CONTEXT": "far"}
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "HOME": str(tmp_path), "LD_PRELOAD": "", **given}
    run = [str(ROOT / "scripts" / "sluice"), "deploy", "web", "--env", "DB_URL"]
    words = subprocess.run(run, env=environment, cwd=tmp_path, check=True, capture_output=True, text=True).stdout.split("\n")
    passed = {words[number + 1] for number, word in enumerate(words[: words.index("deploy")]) if word == "--env"}
    assert {"DB_URL", "COMPOSE_PROFILES", f"PWD={tmp_path}"} <= passed
    assert not {name.partition("=")[0] for name in passed} & {"PATH", "LC_ALL", "PYTHONPATH", "DOCKER_CONTEXT", "LD_PRELOAD"}
    assert "hunter2" not in "".join(words)
