"""In-memory fake of the engine's infrastructure port."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from services.engine.infrastructure_port import Gateways, GatewaySpec, GatewayView, NetworkInfo
from services.engine.port import EngineError


@dataclass
class FakeContainer:
    id: str
    running: bool = True
    auto_restart: bool = True
    draining: bool = False
    sockets: str | None = None
    """Path of the UNIX socket over which it receives the listening sockets."""

    @property
    def short_id(self) -> str:
        return self.id[:12]


class FakeInfrastructureEngine:
    """Fake with one network and the gateway's containers; its attributes are the controls."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.spec: GatewaySpec | None = None
        self.log = ""
        self.outdated = False
        self.failing = False
        """The gateway exits at every start, and the engine starts it again."""
        self.fails: EngineError | None = None
        self.dies_before: str | None = None
        """Name of the call at which the caller is killed, before the call has any effect."""
        self.next_ends_at_once = False
        self.open_files: int | None = None
        self.unreachable: str | None = None
        self.open_outside = False
        """Whether containers on other networks get an answer from the bridge's address.

        `unreachable`: why containers on the bridge do not reach that address.
        """
        self.on_start: Callable[[FakeContainer], None] = lambda container: None
        self.network: NetworkInfo | None = None
        self.free_subnet = "10.203.0.0/22"
        """Subnet of a network for which none is given."""
        self.present: FakeContainer | None = None
        self.next: FakeContainer | None = None
        self.predecessors: list[FakeContainer] = []
        self._restarts = 0
        self._created = 0

    async def ensure_network(self, subnet: str | None, previous: str | None = None) -> NetworkInfo:
        self._record("ensure_network")
        self.network = self.network or NetworkInfo(subnet or previous or self.free_subnet, "10.203.0.1")
        return self.network

    async def inspect_network(self) -> NetworkInfo | None:
        self._record("inspect_network")
        return self.network

    async def ensure_gateway(self, spec: GatewaySpec) -> GatewayView:
        self._record("ensure_gateway")
        self.spec = spec
        if self.present is None:
            self.present = self._container()
            self.on_start(self.present)
        elif not self.present.running:
            self.present.running = True
            self.on_start(self.present)
        return self._view(self.present)

    async def restart_gateway(self) -> None:
        self._record("restart_gateway")
        if self.present is not None:
            self.on_start(self.present)

    async def inspect_gateway(self) -> GatewayView | None:
        self._record("inspect_gateway")
        self._restarts += self.failing
        return self._view(self.present) if self.present else None

    async def inspect_gateways(self, spec: GatewaySpec) -> Gateways:
        self._record("inspect_gateways")
        return Gateways(
            self._view(self.present) if self.present else None,
            self._view(self.next) if self.next else None,
            tuple(map(self._view, self.predecessors)),
        )

    async def start_next_gateway(self, spec: GatewaySpec, sockets: str) -> GatewayView:
        self._record("start_next_gateway")
        self.next = self._container()
        self.next.auto_restart, self.next.sockets = False, sockets
        self.next.running = not self.next_ends_at_once
        if self.next.running:
            self.on_start(self.next)
        return self._view(self.next)

    async def remove_next_gateway(self) -> None:
        self._record("remove_next_gateway")
        self.next = None

    async def promote_next_gateway(self) -> None:
        """Promote in two steps, as with a real engine: the caller may be killed between them."""
        self._record("promote_next_gateway")
        if self.next is None:
            return
        self.next.auto_restart = True
        if self.present is not None:
            self.present.auto_restart = False
            self.predecessors.append(self.present)
            self.present = None
        self._record("rename_next_gateway")
        self.present, self.next = self.next, None

    async def drain_gateway(self, id: str) -> None:
        self._record("drain_gateway")
        for container in self.predecessors:
            if container.id == id:
                container.auto_restart, container.draining = False, True

    async def remove_gateway(self, id: str) -> None:
        self._record("remove_gateway")
        self.predecessors = [container for container in self.predecessors if container.id != id or container.running]

    async def gateway_log(self, tail: int = 50) -> str:
        self._record("gateway_log")
        return self.log

    async def next_gateway_log(self, tail: int = 50) -> str:
        self._record("next_gateway_log")
        return self.log

    async def check_reachable(self, image: str, address: str, port: int) -> str | None:
        self._record("check_reachable")
        return self.unreachable

    async def answers_outside(self, image: str, address: str, port: int) -> bool:
        self._record("answers_outside")
        return self.open_outside

    def _container(self) -> FakeContainer:
        self._created += 1
        return FakeContainer(f"{self._created:064x}"[::-1])

    def _view(self, container: FakeContainer) -> GatewayView:
        view = GatewayView(container.id, container.running and not self.failing, self._restarts)
        newest = container is self.present and self._created > 1 and self.next is None
        outdated = self.outdated and container is self.present and not newest
        return replace(view, exit_code=None if view.running else 1, outdated=outdated, open_files=self.open_files)

    def _record(self, call: str) -> None:
        if self.dies_before == call:
            self.dies_before = None
            raise ProcessKilled(call)
        self.calls.append(call)
        if self.fails is not None:
            raise self.fails


class ProcessKilled(BaseException):
    """The calling process was killed."""
