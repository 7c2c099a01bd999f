"""The CI jobs that `sluice init` writes deploy with curl only, and succeed or fail with the deployment."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.support.cli_fixture import DEPLOY, CliFixture

pytestmark = pytest.mark.slow

JOBS = [("--github", ".github/workflows/deploy.yml"), ("--gitlab", ".gitlab/sluice.yml")]


def step_of(path: Path) -> tuple[str, list[str]]:
    """Return the script of the deploying step, and the names of the variables that the job sets for it."""
    document = yaml.safe_load(path.read_text())
    if "jobs" in document:
        job = document["jobs"]["deploy"]
        return job["steps"][-1]["run"], [*job["env"], "GITHUB_RUN_ID", "GITHUB_RUN_ATTEMPT"]
    job = document["deploy"]
    return job["script"][-1], [*job["variables"], "SLUICE_URL", "SLUICE_TOKEN", "CI_JOB_ID"]


def run(cli_fixture: CliFixture, path: Path, image: str, run: str) -> subprocess.CompletedProcess[str]:
    """Run the deploying step in bash as CI runners do (`-e -o pipefail`), with only the job's own environment."""
    script, names = step_of(path)
    token = cli_fixture.sluice("token", "create", f"ci {run}", "--scope", "deploy").stdout.strip()
    values = {"IMAGE": image, "REVISION": "3f2a9c1", "SLUICE_URL": cli_fixture.url, "SLUICE_TOKEN": token}
    environment = {name: values.get(name, run) for name in names}
    return subprocess.run(
        ["bash", "-e", "-o", "pipefail", "-c", script],
        env={"PATH": os.environ["PATH"], "no_proxy": "*", **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize(("option", "path"), JOBS)
def test_ci_job_succeeds_and_fails_with_its_deployment(cli_fixture: CliFixture, option: str, path: str) -> None:
    cli_fixture.sluice("init", "web", option)
    cli_fixture.sluice(*DEPLOY)
    good = run(cli_fixture, Path(path), "web:2", "71")
    assert good.returncode == 0, good.stderr
    deployment = json.loads(good.stdout)
    assert (deployment["status"], deployment["image"], deployment["note"]) == ("succeeded", "web:2", "3f2a9c1")
    bad = run(cli_fixture, Path(path), "web:broken", "72")
    assert bad.returncode == 22, "curl's own, for an HTTP error"
    assert json.loads(bad.stdout)["code"] == "deployment_failed"
    assert cli_fixture.sluice("status", "web", "-q").stdout == "serving\n", "the version before it serves on"
    refused = run(cli_fixture, Path(path), "no image", "73")
    assert refused.returncode != 0 and json.loads(refused.stdout)["errors"][0]["field"] == "image"


@pytest.mark.parametrize(("option", "path"), JOBS)
def test_ci_job_run_again_after_a_lost_answer_deploys_once(cli_fixture: CliFixture, option: str, path: str) -> None:
    cli_fixture.sluice("init", "web", option)
    cli_fixture.sluice(*DEPLOY)
    script, names = step_of(Path(path))
    environment = {**dict.fromkeys(names, "80"), "IMAGE": "web:2", **cli_fixture.environment, "PATH": os.environ["PATH"]}
    for _ in range(2):
        subprocess.run(["bash", "-e", "-c", script], env=environment, check=True, capture_output=True, timeout=60)
    assert cli_fixture.sluice("history", "web", "-q").stdout == "2\n1\n"
