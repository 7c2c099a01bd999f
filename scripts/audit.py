#!/usr/bin/env python3
"""Audit the locked Python packages for known vulnerabilities: `scripts/audit.py [PIP_AUDIT]`.

The exit status is 1 if a finding is not in ACCEPTED. Without vulnerability data (no network, or a package index that has
none) the script prints one line, and the status is 0.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
LOCKS = ("requirements.lock", "requirements-dev.lock", "requirements-build.lock", "requirements-docs.lock")
ACCEPTED: dict[str, str] = {}
"""Id of a vulnerability → the reason to accept it."""
AUDIT_TIMEOUT = 45
"""Timeout of one audit, in seconds."""


def main(command: str) -> int:
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as probe:
        probe.write(_first((ROOT / LOCKS[0]).read_text()))
        probe.flush()
        found = _audit(command, probe.name)
        if found:  # the index has data of one package: ask for all
            found = _audit(command, *(str(ROOT / lock) for lock in LOCKS))
    if not found:
        print("pip-audit: no vulnerability data from the package index; the locked packages were not audited")
        return 0
    skipped = [package["name"] for package in found if "skip_reason" in package]
    bad = [
        f"{package['name']} {package['version']}: {flaw['id']}; fixed in {', '.join(flaw['fix_versions']) or 'no version'}"
        for package in found
        for flaw in package.get("vulns", ())
        if not {flaw["id"], *flaw.get("aliases", ())} & ACCEPTED.keys()
    ]
    if skipped:
        print(f"pip-audit: no vulnerability data for {', '.join(skipped)}")
    if bad:
        print(
            "pip-audit:",
            *sorted(set(bad)),
            "upgrade by scripts/lock.sh, or accept with a reason in scripts/audit.py",
            sep="\n  ",
        )
    return 1 if bad else 0


def _first(lock: str) -> str:
    """Return the first package of a lock, with its hashes."""
    lines = [line for line in lock.splitlines(keepends=True) if not line.startswith("#")]
    end = next(number for number, line in enumerate(lines) if not line.rstrip().endswith("\\"))
    return "".join(lines[: end + 1])


def _audit(command: str, *requirements: str) -> list[dict[str, Any]]:
    """Return the packages with their known vulnerabilities; an empty list if there is no data for any."""
    words = [command, "--disable-pip", "--format=json", "--progress-spinner=off", "--timeout=5"]
    words += [word for path in requirements for word in ("--requirement", path)]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=AUDIT_TIMEOUT)  # noqa: S603 - a fixed command
        packages: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return []
    return packages if any("skip_reason" not in package for package in packages) else []


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else str(Path(sys.executable).with_name("pip-audit"))))
