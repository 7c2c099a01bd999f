"""The engine's ports for infrastructure: instances' network, gateway container, Sluice's container."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

HOST_SOCKET_ENV = "SLUICE_HOST_SOCKET"
"""Variable that passes the host path of the engine's socket to a container of Sluice's image."""


@dataclass(frozen=True)
class NetworkInfo:
    """The instances' network: its subnet ("10.203.0.0/22") and the address of the bridge in that subnet."""

    subnet: str
    bridge_address: str


@dataclass(frozen=True)
class GatewaySpec:
    """Settings of the gateway's container.

    `image` is a tag; `directory` is a host path, mounted as /run/gateway.
    """

    image: str
    directory: str
    open_files: int = 20_000
    """Limit of open files. Some engines allow no more than this default."""


@dataclass(frozen=True)
class GatewayView:
    """State of the gateway's container.

    `outdated`: its image or settings differ from those of a container created today. Such a container keeps running,
    because replacing it is an upgrade.
    """

    container_id: str
    running: bool
    restarts: int = 0
    exit_code: int | None = None
    outdated: bool = False
    restarting: bool = False
    """True if the engine is about to start the container again."""
    image: str = ""
    open_files: int | None = None
    """Limit of open files; None means unlimited, as far as is known."""

    @property
    def short_id(self) -> str:
        return self.container_id[:12]


@dataclass(frozen=True)
class Gateways:
    """The gateway's containers during an upgrade.

    `successor` is the new gateway, which is to take over. `predecessors` are the old gateways, running or ended.
    """

    current: GatewayView | None = None
    successor: GatewayView | None = None
    predecessors: tuple[GatewayView, ...] = ()


@dataclass(frozen=True)
class ControlPlaneSpec:
    """Settings of Sluice's container. All paths are on the host.

    `data` has the same path inside. `files` are mounted read-only: host path → path inside.
    """

    image: str
    data: str
    socket: str
    files: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ControlPlaneView:
    """State of Sluice's container.

    `outdated`: its image or settings differ from those of a container created today.
    """

    running: bool
    restarts: int = 0
    outdated: bool = False


class InfrastructureEngine(Protocol):
    """The engine as the infrastructure supervisor alone uses it.

    Every call is idempotent and raises EngineError.

    A network or container with a name of this Sluice but without its labels is refused, never changed.
    """

    async def ensure_network(self, subnet: str | None, previous: str | None = None) -> NetworkInfo:
        """Create the bridge network with this subnet or a free one, or adopt the existing network.

        Without `subnet`, the `previous` subnet of a network that is missing now is preferred, if it is still free.
        Raises EngineError if the network exists with another subnet than the requested one.
        """

    async def ensure_gateway(self, spec: GatewaySpec) -> GatewayView:
        """Create and start the gateway's container, or adopt the running one.

        A stopped container is started, or recreated if it is outdated. Raises EngineError if the running one uses
        another directory.
        """

    async def inspect_network(self) -> NetworkInfo | None:
        """Return the network, None if there is none.

        Raises EngineError if a network with this name is not Sluice's.
        """

    async def restart_gateway(self) -> None:
        """Kill the gateway and start it again, even if it hangs. Does nothing if there is no gateway."""

    async def inspect_gateway(self) -> GatewayView | None:
        """Return the gateway's container, None if there is none of this Sluice."""

    async def inspect_gateways(self, spec: GatewaySpec) -> Gateways:
        """Return all gateway containers, also during an upgrade. Only the current one's `outdated` is set."""

    async def start_next_gateway(self, spec: GatewaySpec, sockets: str) -> GatewayView:
        """Start a new gateway that receives the listening sockets of the current one.

        `sockets` is the path of their UNIX socket inside the container. The engine does not restart the new gateway.
        One that exists already is removed first.
        """

    async def next_gateway_log(self, tail: int = 50) -> str:
        """Return the last lines that the new gateway wrote, empty if there is none."""

    async def remove_next_gateway(self) -> None:
        """Remove the new gateway, regardless of its state."""

    async def promote_next_gateway(self) -> None:
        """Make the new gateway the current one and the current one a predecessor.

        From then on the engine restarts the new one and no longer the old one. Both are renamed: the new one gets the
        current one's name.
        """

    async def drain_gateway(self, id: str) -> None:
        """Make a predecessor accept nothing new, finish its connections and end. Harmless if repeated."""

    async def remove_gateway(self, id: str) -> None:
        """Remove a predecessor that has ended."""

    async def check_reachable(self, image: str, address: str, port: int) -> str | None:
        """Return None if a container on the network can connect to the address, otherwise the cause.

        Pulls no image.
        """

    async def answers_outside(self, image: str, address: str, port: int) -> bool:
        """Return True if a container on another network gets an answer to an HTTP request from the address.

        Pulls no image.
        """

    async def gateway_log(self, tail: int = 50) -> str:
        """Return the last lines that the gateway wrote, empty if there is no gateway."""


class ControlPlaneEngine(Protocol):
    """The engine as `sluice up` and `sluice down` alone use it, for the Sluice called `name`.

    Every call is idempotent and raises EngineError.
    """

    @property
    def name(self) -> str: ...

    async def inspect_control_plane(self, spec: ControlPlaneSpec) -> ControlPlaneView | None:
        """Return the state of Sluice's container, None if there is none.

        Raises EngineError if a container with its name is not Sluice's, or if the image is missing.
        """

    async def ensure_control_plane(self, spec: ControlPlaneSpec) -> None:
        """Start Sluice's container, or replace it if it is outdated.

        The gateway and the instances are not changed.
        """

    async def control_plane_log(self, tail: int = 10) -> str:
        """Return the last lines that Sluice wrote, empty if there is no container."""

    async def gateway_runs(self) -> bool:
        """Return True if a gateway of this Sluice runs."""

    async def remove_all(self, data: str, files: tuple[str, ...], image: str) -> list[str]:
        """Remove this Sluice's containers, network, volumes, and `files` in its data directory.

        Return a line for each removal.

        The data directory is the one in the settings of Sluice's container, otherwise `data`. It is removed too if it
        is empty afterwards. Only objects with this Sluice's label and the matching name are removed. `image` is an image
        with a shell.
        """
