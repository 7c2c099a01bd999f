"""`make down` and images that are still in use; `docker` is a stub that answers like the engine."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCKER = """#!/bin/sh
echo "$*" >>"$TOLD"
case "$*" in
  *"--filter label=sluice.name") echo "$STANDING" ;;
  "image inspect "*" sluice:"*) exit 1 ;;
  "image inspect "*) echo image ;;
  "image rm hello:1") echo "conflict: container 0123456789ab is using its referenced image" >&2; exit 1 ;;
esac
"""


def down(directory: Path, standing: str) -> tuple[subprocess.CompletedProcess[str], str]:
    """Run `make down`; return its result and the commands that the engine got."""
    (directory / "docker").write_text(DOCKER)
    (directory / "docker").chmod(0o755)
    reported = directory / "told"
    environment = {
        "PATH": f"{directory}:{os.environ['PATH']}",
        "TOLD": str(reported),
        "STANDING": standing,
        "SLUICE_NAME": "mine",
    }
    done = subprocess.run(
        ["scripts/down.sh"], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    return done, reported.read_text()


def test_images_stay_while_another_sluice_exists(tmp_path: Path) -> None:
    done, reported = down(tmp_path, "0123456789ab")
    assert done.returncode == 0, done.stderr
    assert "keeping the images" in done.stderr
    assert "image rm" not in reported


def test_down_keeps_only_images_that_a_container_uses(tmp_path: Path) -> None:
    done, reported = down(tmp_path, "")
    assert done.returncode == 0, done.stderr
    assert "keeping image hello:1: it is in use" in done.stderr
    assert "removed image hello:2" in done.stdout
    assert "hello:1" not in done.stdout
    assert "--force" not in "".join(line for line in reported.splitlines() if line.startswith("image rm"))
