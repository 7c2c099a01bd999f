"""The floor of a deployment: the time that the engine alone needs for the same containers.

The new containers are created and started in parallel, each by its own thread and at its own address, and probed every
50 ms until the last one is ready; then the old ones are stopped in parallel. Nothing is drained, no row is written,
nothing is read back and no container is removed within the time measured: no deployment can be faster.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import ipaddress
import itertools
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import docker as sdk
from docker.errors import APIError
from docker.utils import kwargs_from_env

from bench.report import median, save, spread, table
from tests.support.docker_cli import hello

PROBE_EVERY = 0.05
READY_WITHIN = 180.0


@dataclass(frozen=True, slots=True)
class Round:
    """Seconds until all new containers were ready, and seconds to stop all old ones."""

    start: float
    stop: float

    @property
    def total(self) -> float:
        return self.start + self.stop


class Baseline:
    """The baseline's containers: `with Baseline(image, 3) as floor: floor.round()`.

    Each round replaces the containers of the previous one.
    """

    def __init__(
        self,
        image: str,
        count: int,
        *,
        name: str = "bench-floor",
        port: int = 8000,
        path: str = "/healthz",
        environment: dict[str, str] | None = None,
    ) -> None:
        self._image = image
        self._count = count
        self._name = name
        self._port = port
        self._path = path
        self._environment = environment or {}
        self._threads = ThreadPoolExecutor(count)
        self._clients = [_client() for _ in range(count)]
        self._old: list[str] = []
        self._numbers = itertools.count(1)

    def __enter__(self) -> Self:
        self._sweep()
        self._hosts = self._make_network()
        self._old = self._start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._threads.shutdown()
        self._sweep()
        for client in self._clients:
            client.close()

    def round(self, image: str | None = None) -> Round:
        self._image = image or self._image
        began = time.monotonic()
        new = self._start()
        ready = time.monotonic()
        list(self._threads.map(_stop, self._clients, self._old))
        stopped = time.monotonic()
        for container in self._old:
            self._clients[0].remove_container(container, v=True)
        self._old = new
        return Round(ready - began, stopped - ready)

    def _start(self) -> list[str]:
        addresses = [next(self._hosts) for _ in range(self._count)]
        return list(self._threads.map(self._start_one, self._clients, addresses))

    def _start_one(self, client: Any, address: str) -> str:
        host = client.create_host_config(
            network_mode=self._name, log_config={"Type": "json-file", "Config": {"max-size": "10m", "max-file": "3"}}
        )
        place = client.create_networking_config({self._name: client.create_endpoint_config(ipv4_address=address)})
        made = client.create_container(
            self._image,
            name=f"{self._name}-{next(self._numbers)}",
            labels={"bench.baseline": self._name},
            environment=self._environment,
            host_config=host,
            networking_config=place,
        )
        client.start(made["Id"])
        _wait_until_ready(address, self._port, self._path)
        return str(made["Id"])

    def _make_network(self) -> Iterator[str]:
        """Create a bridge network with the first free subnet, and return its addresses as an endless cycle."""
        for third in range(1, 255):
            subnet = ipaddress.ip_network(f"10.219.{third}.0/24")
            pool = sdk.types.IPAMConfig(pool_configs=[sdk.types.IPAMPool(subnet=str(subnet))])
            with contextlib.suppress(APIError):
                self._clients[0].create_network(
                    self._name, driver="bridge", ipam=pool, labels={"bench.baseline": self._name}
                )
                return itertools.cycle(str(host) for host in list(subnet.hosts())[9:250])
        raise RuntimeError("no subnet of 10.219.0.0/16 is free")

    def _sweep(self) -> None:
        client, ours = self._clients[0], {"label": f"bench.baseline={self._name}"}
        for container in client.containers(all=True, filters=ours):
            client.remove_container(container["Id"], v=True, force=True)
        for network in client.networks(filters=ours):
            client.remove_network(network["Id"])


def _client() -> Any:
    return sdk.APIClient(version="auto", **kwargs_from_env())


def _stop(client: Any, container: str) -> None:
    client.stop(container, timeout=30)


def _wait_until_ready(address: str, port: int, path: str) -> None:
    deadline = time.monotonic() + READY_WITHIN
    while not _is_ready(address, port, path):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{address}:{port}{path} is not ready after {READY_WITHIN:g} s")
        time.sleep(PROBE_EVERY)


def _is_ready(address: str, port: int, path: str) -> bool:
    connection = http.client.HTTPConnection(address, port, timeout=1)
    try:
        connection.request("GET", path)
        return 200 <= connection.getresponse().status < 400
    except OSError:
        return False
    finally:
        connection.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--instances", type=int, default=3)
    given = parser.parse_args()
    images = [hello("1"), hello("2")]
    with Baseline(images[0], given.instances) as floor:
        rounds = [floor.round(images[number % 2]) for number in range(given.rounds)]
    columns = {
        "start until ready": [r.start for r in rounds],
        "stop": [r.stop for r in rounds],
        "floor": [r.total for r in rounds],
    }
    print(
        table(["seconds", "median", "spread"], [[name, median(values), spread(values)] for name, values in columns.items()])
    )
    figures = {name: {"median": median(values), "all": values} for name, values in columns.items()}
    save("floor", {"instances": given.instances, **figures})


if __name__ == "__main__":
    main()
