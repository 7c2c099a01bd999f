"""The audit of the locked packages, with a fake pip-audit whose output the test sets."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.docker_cli import ROOT

GOOD = {"name": "anyio", "version": "1", "vulns": []}
BAD = {"name": "jinja2", "version": "3.0", "vulns": [{"id": "PYSEC-1", "fix_versions": ["3.1"], "aliases": ["CVE-1"]}]}
UNKNOWN = {"name": "own", "skip_reason": "not found"}


def audit(path: Path, said: str) -> tuple[int, str]:
    """Return status and output of the audit when pip-audit prints `said`."""
    command = path / "pip-audit"
    command.write_text(f"#!{sys.executable}\nprint({said!r})\n")
    command.chmod(0o755)
    words = [sys.executable, str(ROOT / "scripts" / "audit.py"), str(command)]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.stderr == ""
    return done.returncode, done.stdout


def document(*packages: dict[str, Any]) -> str:
    return json.dumps({"dependencies": packages, "fixes": []})


def test_finding_fails_the_audit_and_names_the_fixed_version(tmp_path: Path) -> None:
    status, said = audit(tmp_path, document(GOOD, BAD))
    assert status == 1 and "jinja2 3.0: PYSEC-1; fixed in 3.1" in said


def test_audit_without_findings_prints_only_packages_without_data(tmp_path: Path) -> None:
    assert audit(tmp_path, document(GOOD)) == (0, "")
    assert audit(tmp_path, document(GOOD, UNKNOWN)) == (0, "pip-audit: no vulnerability data for own\n")


@pytest.mark.parametrize("said", ["", "Max retries exceeded", document(UNKNOWN), document()])
def test_missing_data_is_reported_in_one_line_and_does_not_fail(tmp_path: Path, said: str) -> None:
    status, reported = audit(tmp_path, said)
    assert status == 0 and reported.count("\n") == 1 and "were not audited" in reported


def test_missing_pip_audit_counts_as_missing_data(tmp_path: Path) -> None:
    words = [sys.executable, str(ROOT / "scripts" / "audit.py"), str(tmp_path / "none")]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0 and "were not audited" in done.stdout
