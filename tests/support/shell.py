"""A new user's shell: one Sluice's name, ports and data, and the scripts that run with them."""

from __future__ import annotations

import os
import secrets
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from tests.support.docker_cli import ROOT, docker, remove_all
from tests.support.sluice_process import free_port


@dataclass
class Shell:
    """The shell's environment, set as a user would set it. `data` need not exist."""

    data: Path
    name: str = field(default_factory=lambda: f"up-{secrets.token_hex(3)}")
    port: int = field(default_factory=free_port)
    gateway_port: int = field(default_factory=free_port)
    more: dict[str, str] = field(default_factory=dict)

    @property
    def variables(self) -> dict[str, str]:
        """Return the variables of its processes: those of this process, and this Sluice's settings."""
        return {
            **{key: value for key, value in os.environ.items() if not key.startswith("SLUICE_")},
            "SLUICE_NAME": self.name,
            "SLUICE_PORT": str(self.port),
            "SLUICE_GATEWAY_PORT": str(self.gateway_port),
            "SLUICE_DATA": str(self.data),
            **self.more,
        }

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a command without a terminal, from outside the repository."""
        return subprocess.run(
            words, env=self.variables, cwd="/", stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=240
        )

    def sluice(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run the command `sluice` from Sluice's image."""
        return self.run(str(ROOT / "scripts" / "sluice"), *words)

    def up(self) -> None:
        done = self.sluice("up")
        assert done.returncode == 0, done.stderr

    def make(self, target: str) -> subprocess.CompletedProcess[str]:
        return self.run("make", "-s", "-C", str(ROOT), target)

    def ready(self) -> dict[str, Any]:
        return dict(httpx.get(f"http://127.0.0.1:{self.port}/readyz", timeout=5).raise_for_status().json())

    def environment(self) -> dict[str, str]:
        """Return the variables that `make -s env` sets in a shell."""
        line = self.make("env").stdout.removeprefix("export ").split()
        return dict(pair.split("=", 1) for pair in line)

    def id_of(self, container: str) -> str:
        return docker("inspect", "--format", "{{.Id}}", container)

    def clean(self) -> None:
        remove_all(self.name)
        for volume in docker("volume", "ls", "--quiet", "--filter", f"label=sluice.name={self.name}").split():
            docker("volume", "rm", volume)
