"""A separate Sluice for a measurement or a test: process, gateway and network; removed at the end."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from tests.support.docker_cli import EngineFault, docker, remove_all

READY_WITHIN = 60.0
ADMIN_FILE = "admin.token"


class SluiceProcess:
    """Sluice process: `with SluiceProcess(directory) as sluice:` starts it and waits until it is ready.

    It can be stopped, killed and started again. `directory` is created and holds the data and the process's log. Ports are
    free ones unless they are given.
    """

    def __init__(self, directory: Path, *, name: str | None = None, **settings: str) -> None:
        self.name = name or f"bench-{secrets.token_hex(3)}"
        self.directory = directory
        self.port, self.gateway_port = free_port(), free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.gateway = f"http://127.0.0.1:{self.gateway_port}"
        self.log = directory / "sluice.log"
        self.volumes: set[str] = set()
        """Named volumes to remove at the end."""
        self.settings = settings
        """SLUICE_… settings of the next start."""
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.remove()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.remove()

    @property
    def data(self) -> Path:
        return self.directory / "data"

    @property
    def token(self) -> str:
        return (self.data / ADMIN_FILE).read_text(encoding="utf-8").strip()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def command(self) -> list[str]:
        return [str(Path(sys.executable).parent / "sluice"), "serve"]

    @property
    def environment(self) -> dict[str, str]:
        retained = {key: value for key, value in os.environ.items() if not key.startswith("SLUICE_")}
        return retained | {
            "SLUICE_NAME": self.name,
            "SLUICE_DATA": str(self.data),
            "SLUICE_PORT": str(self.port),
            "SLUICE_GATEWAY_PORT": str(self.gateway_port),
            "SLUICE_DEFAULT_ROUTE": "/{name}",
            **self.settings,
        }

    def client(self) -> httpx.AsyncClient:
        """Return a client with the admin token, with a timeout long enough for ?wait=."""
        return httpx.AsyncClient(
            base_url=self.url, headers={"Authorization": f"Bearer {self.token}"}, timeout=httpx.Timeout(10, read=130)
        )

    def start(self, *, wait: bool = True) -> None:
        """Start the process. Raises RuntimeError with the end of the log if it ends or is not ready in time."""
        self.data.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self.command, env=self.environment, stdout=log, stderr=log, start_new_session=True
            )
        if wait:
            self.wait_until_ready()

    def wait_until_ready(self, within: float = READY_WITHIN) -> None:
        deadline = time.monotonic() + within
        while (answer := self._readiness()) is None or answer.status_code != 200:
            ended = self._process is None or self._process.poll() is not None
            if ended or time.monotonic() > deadline:
                said = answer.text if answer is not None else "nothing"
                raise RuntimeError(f"Sluice {'ended' if ended else 'is not ready'}; /readyz: {said}\n{self.last_words()}")
            time.sleep(0.05)

    def kill(self) -> None:
        """Send SIGKILL, at any point of its work."""
        self._end(signal.SIGKILL, 10)

    def stop(self, within: float = 30) -> int:
        """Send SIGTERM and return the exit code. Raises subprocess.TimeoutExpired if it does not end in time."""
        return self._end(signal.SIGTERM, within)

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def wait_for_death(self, within: float = 60) -> None:
        """Wait until the process has ended. Raises subprocess.TimeoutExpired if it does not."""
        assert self._process is not None
        self._process.wait(within)

    def remove(self) -> None:
        """Kill the process, and remove everything that it made on the engine."""
        if self._process is not None and self._process.poll() is None:
            self.kill()
        remove_all(self.name)
        for volume in self.volumes:
            docker("volume", "rm", "--force", volume)

    def last_words(self, lines: int = 40) -> str:
        text = self.log.read_text(encoding="utf-8", errors="replace") if self.log.exists() else ""
        return "\n".join(text.splitlines()[-lines:])

    def volume(self, purpose: str) -> str:
        """Return the name of a named volume of this Sluice, removed together with it."""
        name = f"{self.name}-{purpose}"
        self.volumes.add(name)
        return name

    def ledger_of(self, volume: str, image: str) -> list[str]:
        """Return the ids that samples/hello wrote into the volume.

        They are read without the gateway, and whether instances run or not.
        """
        try:
            return docker(
                "run",
                "--rm",
                "--network",
                "none",
                "--volume",
                f"{volume}:/data",
                "--entrypoint",
                "cat",
                image,
                "/data/ledger",
            ).split()
        except EngineFault as fault:
            if "No such file" in str(fault):
                return []
            raise

    def _readiness(self) -> httpx.Response | None:
        try:
            return httpx.get(f"{self.url}/readyz", timeout=5)
        except httpx.TransportError:
            return None

    def _end(self, how: signal.Signals, within: float) -> int:
        assert self._process is not None
        self._process.send_signal(how)
        return self._process.wait(within)


def hello_spec(sluice: SluiceProcess, service: str, image: str, **fields: Any) -> dict[str, Any]:
    """Return the spec of samples/hello for load tests: one ledger for all its instances."""
    orders = {"type": "volume", "source": sluice.volume(f"{service}-orders"), "target": "/data", "shared": True}
    return {
        "service": service,
        "image": image,
        "healthcheck": {"path": "/healthz"},
        "volumes": [orders],
        "routes": [{"path_prefix": f"/{service}", "strip_prefix": True}],
        **fields,
    }


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
