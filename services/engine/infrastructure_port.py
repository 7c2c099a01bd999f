"""The engine as the infrastructure uses it: the network and the gateway's container."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class NetworkInfo:
    """The network that instances stand on: its subnet ("10.203.0.0/22"), and the bridge's own address in it."""

    subnet: str
    bridge_address: str


@dataclass(frozen=True)
class GatewaySpec:
    """The gateway's container: `image` by tag, `directory` of the host that it sees as /run/gateway."""

    image: str
    directory: str
    open_files: int = 20_000
    """There are engines that allow no more."""


@dataclass(frozen=True)
class GatewayView:
    """How the gateway's container fares. `outdated`: it runs another image, or other settings, than it would be made with
    today; it is left as it is, because replacing it is an upgrade."""

    container_id: str
    running: bool
    restarts: int = 0
    exit_code: int | None = None
    outdated: bool = False
    restarting: bool = False
    """The engine is about to start it again."""
    image: str = ""
    open_files: int | None = None
    """What it may have open; None is unlimited, as far as is known."""

    @property
    def short_id(self) -> str:
        return self.container_id[:12]


@dataclass(frozen=True)
class Gateways:
    """`successor`: one that is to take over from the present one. `predecessors`: those that were taken over from,
    running or not."""

    present: GatewayView | None = None
    successor: GatewayView | None = None
    predecessors: tuple[GatewayView, ...] = ()


class InfrastructureEngine(Protocol):
    """For `ground` alone: the network, and the gateway's container. Every call is idempotent and raises EngineError.

    What has our names but is not ours is refused, never touched.
    """

    async def ensure_network(self, subnet: str | None) -> NetworkInfo:
        """Make the bridge network with this subnet, or a free one, or adopt the one that is there.

        A network that is there with another subnet than the wanted one is refused.
        """

    async def ensure_gateway(self, spec: GatewaySpec) -> GatewayView:
        """Make and start the gateway's container, or adopt the one that runs. A stopped one is started, or made anew when
        it would be outdated. A running one that uses another directory is refused."""

    async def inspect_network(self) -> NetworkInfo | None:
        """None when it is not there. EngineError for one that has its name and is not ours."""

    async def restart_gateway(self) -> None:
        """Killed, whatever it does, and started again; nothing when there is none."""

    async def inspect_gateway(self) -> GatewayView | None:
        """None when there is none of ours."""

    async def inspect_gateways(self, spec: GatewaySpec) -> Gateways:
        """All that are there, in the middle of an upgrade too; `outdated` is told of the present one."""

    async def start_next_gateway(self, spec: GatewaySpec, sockets: str) -> GatewayView:
        """A gateway that is given the listening sockets at the path `sockets` of its inside. It is not started again by
        itself; one that was there is removed before."""

    async def next_gateway_log(self, tail: int = 50) -> str:
        """What it has written; empty when there is none."""

    async def remove_next_gateway(self) -> None:
        """Whatever state it is in."""

    async def promote_next_gateway(self) -> None:
        """It is kept from now on, the present one no longer; they get the present one's name, and a leaving one's."""

    async def drain_gateway(self, id: str) -> None:
        """A leaving one is to take nothing new, to finish what it has, and to end; harmless twice."""

    async def remove_gateway(self, id: str) -> None:
        """A leaving one that has ended."""

    async def check_reachable(self, image: str, address: str, port: int) -> str | None:
        """Whether a container on the network can open a connection to there: None, or why not. Pulls nothing."""

    async def answers_outside(self, image: str, address: str, port: int) -> bool:
        """Return whether a container on another network gets an answer to an HTTP request from there. Pulls nothing."""

    async def gateway_log(self, tail: int = 50) -> str:
        """The last lines that the gateway wrote; empty when there is no gateway."""
