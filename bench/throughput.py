"""The gateway's throughput ÷ a bare HAProxy's: same binary, instances, connection mode and logging."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from bench.deployments import deployed
from bench.report import median, save, spread, table
from tests.support.docker_cli import ROOT, build, docker, gateway
from tests.support.sluice_process import SluiceProcess, free_port

MIN_RATIO = 0.95
PROXY_CORE, OTHER_CORE = "0", "1"
"""The proxy's core, and the core that instances and clients share."""
QUOTA = "0.1"
"""Share of its core that the proxy may use: so little that the proxy limits the throughput.

Other programs on the machine then do not affect the result.
"""

BARE = """
global
    log stdout format raw local0 info
    maxconn 8000
    user haproxy
    group haproxy
defaults
    mode http
    log global
    option httplog
    option dontlognull
    option dontlog-normal
    timeout connect 250ms
    timeout client 60s
    timeout server 60s
    timeout http-keep-alive 12s
frontend bare
    bind 127.0.0.1:{port}
    bind {bridge}:{port}
    default_backend instances
backend instances
{servers}
"""


@dataclass(frozen=True, slots=True)
class Run:
    """Requests a second, microseconds of the proxy's CPU a request, and the share of its core used."""

    rate: float
    cpu: float
    busy: float


@dataclass(frozen=True)
class Proxy:
    """A container in the host's network, with its URLs from the host and from the bridge network."""

    container: str
    host: str
    internal: str


class Client:
    """wrk in a container, on the host's network or on the instances' network."""

    def __init__(self, image: str, seconds: int, connections: int, fresh: bool) -> None:
        self._words = [image, "-t1", f"-c{connections}", f"-d{seconds}s"]
        self._words += ["-H", "Connection: close"] if fresh else []

    def run(self, proxy: Proxy, network: str) -> Run:
        url = proxy.host if network == "host" else proxy.internal
        before = _cpu_seconds(proxy.container)
        said = docker("run", "--rm", "--network", network, "--cpuset-cpus", OTHER_CORE, *self._words, url)
        used = _cpu_seconds(proxy.container) - before
        if "Socket errors" in said or "Non-2xx" in said:
            raise RuntimeError(f"{url}: {said}")
        requests, seconds = _requests(said)
        return Run(requests / seconds, used / requests * 1e6, used / seconds)


def measure(client: Client, network: str, gateway: Proxy, bare: Proxy, pairs: int) -> tuple[list[Run], list[Run]]:
    """Measure both proxies in alternation; the first one of each pair alternates too."""
    runs: dict[str, list[Run]] = {gateway.container: [], bare.container: []}
    for number in range(pairs):
        for proxy in (gateway, bare) if number % 2 else (bare, gateway):
            runs[proxy.container].append(client.run(proxy, network))
    return runs[gateway.container], runs[bare.container]


def compare(image: str, network: str, gateway: Proxy, bare: Proxy, given: argparse.Namespace) -> list[dict[str, object]]:
    """Return one row for each connection mode and network."""
    rows: list[dict[str, object]] = []
    for way, where in (("host", "host"), ("internal_url", network)):
        for mode, fresh in (("keep-alive", False), ("fresh", True)):
            client = Client(image, given.seconds, given.connections, fresh)
            ours, theirs = measure(client, where, gateway, bare, given.pairs)
            ratios = [our.rate / their.rate for our, their in zip(ours, theirs, strict=True)]
            rows.append(
                {
                    "way": way,
                    "mode": mode,
                    "gateway": median([run.rate for run in ours]),
                    "bare": median([run.rate for run in theirs]),
                    "ratio": median(ratios),
                    "spread": spread(ratios),
                    "gateway_cpu_us": median([run.cpu for run in ours]),
                    "bare_cpu_us": median([run.cpu for run in theirs]),
                    "gateway_busy": median([run.busy for run in ours]),
                    "bare_busy": median([run.busy for run in theirs]),
                    "bound": min(median([run.busy for run in runs]) for runs in (ours, theirs)) > 0.85 * float(QUOTA),
                }
            )
    return rows


def show(rows: list[dict[str, object]]) -> str:
    head = ["way", "mode", "gateway/s", "bare/s", "ratio", "spread", "µs CPU", "bare µs", "busy", "bare busy", "proxy-bound"]
    return table(head, [list(row.values()) for row in rows])


@contextlib.contextmanager
def bare_haproxy(image: str, name: str, bridge: str, addresses: list[str]) -> Iterator[Proxy]:
    """Run a bare HAProxy in a container; `image`: the gateway's, for its binary."""
    port = free_port()
    servers = "\n".join(f"    server s{number} {address}" for number, address in enumerate(addresses))
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "haproxy.cfg"
        file.write_text(BARE.format(port=port, bridge=bridge, servers=servers), encoding="utf-8")
        start = ["run", "--detach", "--network", "host", "--name", name, "--volume", f"{file}:/bare.cfg:ro"]
        docker(*start, "--entrypoint", "haproxy", image, "-W", "-db", "-f", "/bare.cfg")
        try:
            yield Proxy(name, f"http://127.0.0.1:{port}/", f"http://{bridge}:{port}/")
        finally:
            docker("rm", "--force", name)


async def run(given: argparse.Namespace) -> int:
    wrk = "sluice-bench/wrk"
    build(wrk, ROOT / "bench" / "images" / "wrk")
    with (
        tempfile.TemporaryDirectory() as directory,
        SluiceProcess(Path(directory), SLUICE_GATEWAY_IMAGE=gateway()) as sluice,
    ):
        container = f"{sluice.name}-gateway"
        image = docker("inspect", "--format", "{{.Image}}", container)
        build("sluice-bench/answer", ROOT / "bench" / "images" / "answer", GATEWAY=image)
        async with sluice.client() as http:
            route = {"path_prefix": "/"}
            body = {"service": "answer", "image": "sluice-bench/answer", "port": 8000, "replicas": 2, "routes": [route]}
            await deployed(http, body)
            service = (await http.get("/services/answer")).json()
            instances = (await http.get("/instances", params={"service": "answer"})).json()["items"]
        for instance in instances:
            docker("update", "--cpuset-cpus", OTHER_CORE, instance["container_id"])
        ours = Proxy(container, f"{sluice.gateway}/", f"{service['internal_url']}/")
        bridge = urlsplit(service["internal_url"]).hostname or ""
        addresses = [instance["address"] for instance in instances]
        with bare_haproxy(image, f"{sluice.name}-bare", bridge, addresses) as bare:
            for proxy in (ours, bare):
                docker("update", "--cpuset-cpus", PROXY_CORE, "--cpus", QUOTA, proxy.container)
            rows = compare(wrk, sluice.name, ours, bare, given)
    print(show(rows))
    if not all(row["bound"] for row in rows):
        print("If a row is not proxy-bound, other work used the host: ignore its ratio; CPU per request is still valid.")
    print("saved to", save("throughput", {"bar": MIN_RATIO, "rows": rows}))
    return int(any(row["bound"] and float(str(row["ratio"])) < MIN_RATIO for row in rows))


def _requests(said: str) -> tuple[int, float]:
    found = re.search(r"(\d+) requests in ([\d.]+)(s|m)", said)
    if found is None:
        raise RuntimeError(f"wrk said {said}")
    return int(found[1]), float(found[2]) * (60 if found[3] == "m" else 1)


def _cpu_seconds(container: str) -> float:
    """Return the CPU seconds that all processes of the container have used so far."""
    ticks = 0
    for pid in docker("top", container, "-o", "pid").split()[1:]:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / 100


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=9)
    parser.add_argument("--seconds", type=int, default=4, help="of one run")
    parser.add_argument("--connections", type=int, default=32)
    raise SystemExit(asyncio.run(run(parser.parse_args())))


if __name__ == "__main__":
    main()
