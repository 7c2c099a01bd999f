"""Docker's command line, for measurements and for tests on real parts."""

from __future__ import annotations

import re
import subprocess
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
LABEL = "sluice.name"
IN_USE = re.compile("has active endpoints|is already in progress|No such container")
"""Errors of the engine that end by themselves: another removal, or a start, has not ended yet."""


class EngineFault(Exception):
    """A docker command failed; the message is its output."""


def docker(*words: str, timeout: float = 300) -> str:
    """Run `docker words…` and return its output. Raises EngineFault."""
    done = subprocess.run(["docker", *words], capture_output=True, text=True, timeout=timeout)
    if done.returncode != 0:
        raise EngineFault(f"docker {' '.join(words)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout.strip()


def answers() -> bool:
    try:
        docker("version", "--format", "{{.Server.Version}}", timeout=20)
    except (EngineFault, OSError, subprocess.TimeoutExpired):
        return False
    return True


def build(tag: str, context: Path, **arguments: str) -> str:
    """Build the image `tag` from `context`, quickly if nothing has changed; return its id."""
    given = [word for name, value in arguments.items() for word in ("--build-arg", f"{name}={value}")]
    # the classic builder: engines without buildx have no other, and newer ones still have it
    command = [
        "env",
        "DOCKER_BUILDKIT=0",
        "docker",
        "build",
        "--quiet",
        "--network",
        "host",
        "--tag",
        tag,
        *given,
        str(context),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    if done.returncode != 0:
        raise EngineFault(f"{tag} could not be built: {done.stderr.strip()}")
    return done.stdout.strip().splitlines()[-1]


def hello(version: str) -> str:
    """Build the sample's image of this version, and return its tag."""
    tag = f"sluice-bench/hello:{version}"
    build(tag, ROOT / "samples" / "hello", VERSION=version)
    return tag


def gateway() -> str:
    """Build the gateway's image, and return its tag."""
    tag = "sluice-bench/gateway"
    build(tag, ROOT / "services" / "gateway")
    return tag


def remove_all(name: str, within: float = 60) -> None:
    """Remove everything with the label of the Sluice called exactly `name`: containers, then its networks.

    A killed Sluice may have left a request at the engine, which starts one more container after the list was read. The
    containers are therefore listed again while a network is in use, for `within` seconds. Raises EngineFault after that.
    """
    ours = ("--quiet", "--filter", f"label={LABEL}={name}")
    deadline = time.monotonic() + within
    while True:
        try:
            if containers := docker("ps", "--all", *ours).split():
                docker("rm", "--force", "--volumes", *containers)
            for network in docker("network", "ls", *ours).split():
                docker("network", "rm", network)
        except EngineFault as error:
            if not IN_USE.search(str(error)) or time.monotonic() > deadline:
                raise
            time.sleep(0.1)
        else:
            return
