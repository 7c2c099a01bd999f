"""The engine as the ground knows it, wholly in memory."""

from __future__ import annotations

from services.engine.port import EngineError, Footing, GatewaySpec, GatewayView


class FakeGroundEngine:
    """One network and one gateway; the knobs are its attributes."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.spec: GatewaySpec | None = None
        self.log = ""
        self.outdated = False
        self.failing = False
        """The gateway exits at every start; the engine starts it again."""
        self.fails: EngineError | None = None
        self._restarts = 0

    async def make_network(self, subnet: str | None) -> Footing:
        self._asked("make_network")
        return Footing(subnet or "10.203.0.0/22", "10.203.0.1")

    async def make_gateway(self, spec: GatewaySpec) -> GatewayView:
        self._asked("make_gateway")
        self.spec = spec
        return self._view()

    async def see_gateway(self) -> GatewayView | None:
        self._asked("see_gateway")
        self._restarts += self.failing
        return self._view()

    async def gateway_log(self, tail: int = 50) -> str:
        self._asked("gateway_log")
        return self.log

    def _view(self) -> GatewayView:
        exit_code = 1 if self.failing else None
        return GatewayView("c" * 64, not self.failing, self._restarts, exit_code, self.outdated)

    def _asked(self, call: str) -> None:
        self.calls.append(call)
        if self.fails is not None:
            raise self.fails
