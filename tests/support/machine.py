"""A test machine: namespaces with a Docker engine of their own that can be ended, hung and cut off.

The namespaces are those of processes, network and mounts.

The user's engine is never touched. After a power cut the files remain, as on any machine.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.support.docker_cli import docker
from tests.support.resource_usage import children
from tests.support.sluice_process import SluiceProcess

STARTED_WITHIN = 60.0
BOOT = """
set -e
mount -t tmpfs none /run/containerd 2>/dev/null || { mkdir -p /run/containerd && mount -t tmpfs none /run/containerd; }
ip link set lo up
trap '' CHLD
exec sleep infinity
"""
"""Script of its first process. SIGCHLD is ignored, so that the kernel itself reaps orphans."""


class Machine:
    """The machine, running inside `with Machine(directory) as machine:`.

    Its engine answers, and it is reached at `address` from outside.
    """

    def __init__(self, directory: Path, number: int) -> None:
        """Name the machine and its addresses.

        `number`, 0 to 63: the /30 of 10.255.201.0/24 that leads to the machine.
        """
        self.name = f"m{secrets.token_hex(3)}"
        self.directory = directory
        self.address, self._outside = f"10.255.201.{4 * number + 2}", f"10.255.201.{4 * number + 1}"
        self.engine = f"unix://{directory}/docker.sock"
        self._first: subprocess.Popen[bytes] | None = None
        self._engine: subprocess.Popen[bytes] | None = None
        self._containerd: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        try:
            self.power_on()
        except BaseException:
            self.power_cut()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.power_cut()
        shutil.rmtree(self.directory / "engine", ignore_errors=True)

    @property
    def pid(self) -> int:
        """Return its first process's id, as seen from outside."""
        assert self._first is not None
        return children(self._first.pid)[0]

    def inside(self, *command: str) -> list[str]:
        """Return the command line that runs `command` on it."""
        return ["nsenter", "--target", str(self.pid), "--mount", "--net", "--pid", "--", *command]

    def run(self, *command: str) -> str:
        return subprocess.run(self.inside(*command), check=True, capture_output=True, text=True, timeout=60).stdout

    def docker(self, *words: str) -> str:
        return docker("--host", self.engine, *words)

    def power_on(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        apart = ["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]
        self._first = subprocess.Popen([*apart, "sh", "-c", BOOT], start_new_session=True)
        wait_for(lambda: bool(children(self._first.pid)) and _comm(self.pid) == "sleep", "its first process")  # type: ignore[union-attr]
        outer, inner = f"{self.name}o", f"{self.name}i"
        _ip("link", "add", outer, "type", "veth", "peer", "name", inner, "netns", str(self.pid))
        _ip("address", "add", f"{self._outside}/30", "dev", outer)
        _ip("link", "set", outer, "up")
        self.run("ip", "address", "add", f"{self.address}/30", "dev", inner)
        self.run("ip", "link", "set", inner, "up")
        self.start_containerd()
        self.start_engine()

    def power_cut(self) -> None:
        """Kill all its processes at the same time; its network and everything in memory are lost."""
        if self._first is None:
            return
        for pid in children(self._first.pid):
            os.kill(pid, signal.SIGKILL)
        self._first.kill()
        self._first.wait(30)
        for process in (self._engine, self._containerd):
            if process is not None:
                process.wait(30)
        subprocess.run(["ip", "link", "delete", f"{self.name}o"], capture_output=True, check=False)
        shutil.rmtree(self.directory / "run", ignore_errors=True)
        self._first = self._engine = self._containerd = None

    def start_containerd(self) -> None:
        """Start containerd on its own, so that dockerd can end while containers keep running."""
        at = self.directory / "run" / "containerd.sock"
        with (self.directory / "containerd.log").open("ab") as log:
            command = [
                "containerd",
                *("--root", f"{self.directory}/engine/containerd"),
                *("--state", f"{self.directory}/run/containerd"),
                *("--address", str(at)),
            ]
            self._containerd = subprocess.Popen(self.inside(*command), stdout=log, stderr=log, start_new_session=True)
        wait_for(at.exists, f"containerd; see {self.directory}/containerd.log")

    def start_engine(self, *, wait: bool = True) -> None:
        with (self.directory / "dockerd.log").open("ab") as log:
            command = [
                "dockerd",
                *("--data-root", f"{self.directory}/engine"),
                *("--exec-root", f"{self.directory}/run"),
                *("--pidfile", f"{self.directory}/docker.pid"),
                *("--host", self.engine),
                *("--containerd", f"{self.directory}/run/containerd.sock"),
                *("--cgroup-parent", f"/{self.name}"),
            ]
            (self.directory / "docker.pid").unlink(missing_ok=True)
            self._engine = subprocess.Popen(self.inside(*command), stdout=log, stderr=log, start_new_session=True)
        if wait:
            wait_for(self.engine_answers, f"dockerd; see {self.directory}/dockerd.log")

    def signal_engine(self, number: signal.Signals) -> None:
        """Send the signal to dockerd alone.

        nsenter, which waits for dockerd, stops when dockerd is stopped, so SIGCONT is sent to both.
        """
        assert self._engine is not None
        also = [self._engine.pid] if number == signal.SIGCONT else []
        for pid in [*children(self._engine.pid), *also]:
            os.kill(pid, number)

    def end_engine(self, number: signal.Signals) -> None:
        """Send SIGTERM or SIGKILL to dockerd, and wait for its end."""
        self.signal_engine(number)
        assert self._engine is not None
        self._engine.wait(60)

    def engine_answers(self) -> bool:
        asked = ["docker", "--host", self.engine, "version", "--format", "{{.Server.Version}}"]
        try:
            return subprocess.run(asked, capture_output=True, timeout=5, check=False).returncode == 0
        except subprocess.TimeoutExpired:
            return False

    def take(self, *images: str) -> None:
        """Copy images from the user's engine."""
        with subprocess.Popen(["docker", "save", *images], stdout=subprocess.PIPE) as saved:
            loaded = subprocess.run(
                ["docker", "--host", self.engine, "load"], stdin=saved.stdout, capture_output=True, text=True, check=False
            )
        if loaded.returncode:
            raise RuntimeError(loaded.stderr)


class MachineSluiceProcess(SluiceProcess):
    """A Sluice whose process runs on `machine`, and ends when that does."""

    def __init__(self, machine: Machine, directory: Path, **settings: str) -> None:
        super().__init__(directory, SLUICE_HOST=machine.address, SLUICE_DOCKER_HOST=machine.engine, **settings)
        self.machine = machine
        self.url = f"http://{machine.address}:{self.port}"
        self.gateway = f"http://{machine.address}:{self.gateway_port}"

    @property
    def command(self) -> list[str]:
        return self.machine.inside(*super().command)

    @property
    def pid(self) -> int:
        return children(super().pid)[0]

    def start(self, *, wait: bool = True) -> None:
        if self._process is not None:
            self._process.wait(10)  # its machine may have ended it
        super().start(wait=wait)

    def remove(self) -> None:
        """Kill its process; `clear` or the machine's end removes what it made on that engine."""
        if self._process is not None and self._process.poll() is None:
            self.kill()

    def clear(self) -> None:
        """Return the machine to its initial state."""
        self.remove()
        if containers := self.machine.docker("ps", "--all", "--quiet").split():
            self.machine.docker("rm", "--force", "--volumes", *containers)
        self.machine.docker("network", "prune", "--force")
        self.machine.docker("volume", "prune", "--force")

    def _end(self, how: signal.Signals, within: float) -> int:
        assert self._process is not None
        for pid in children(self._process.pid):
            os.kill(pid, how)
        return self._process.wait(within)


def wait_for(condition: Callable[[], bool], what: str, within: float = STARTED_WITHIN) -> None:
    """Wait until the condition holds. Raises TimeoutError that names `what`."""
    deadline = time.monotonic() + within
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {within:g} s for {what}")
        time.sleep(0.05)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


def _comm(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text(encoding="utf-8").strip()
