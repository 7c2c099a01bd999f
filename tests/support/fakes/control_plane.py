"""In-memory fake of the engine's control plane port."""

from __future__ import annotations

from collections.abc import Callable

from services.engine.infrastructure_port import ControlPlaneSpec, ControlPlaneView


class FakeControlPlaneEngine:
    """Fake with Sluice's container alone; its attributes are the controls. `calls` has the calls that change something."""

    name = "sluice"

    def __init__(self) -> None:
        self.present: ControlPlaneView | None = None
        self.failing = False
        """The process exits at every start, and the engine starts it again."""
        self.vanishing = False
        """The container is removed as soon as it is started."""
        self.gateway = False
        self.log = ""
        self.calls: list[str] = []
        self.on_start: Callable[[], None] = lambda: None

    async def inspect_control_plane(self, spec: ControlPlaneSpec) -> ControlPlaneView | None:
        present = self.present
        if present is not None and self.failing:
            self.present = ControlPlaneView(running=False, restarts=present.restarts + 1)
        return present

    async def ensure_control_plane(self, spec: ControlPlaneSpec) -> None:
        self.calls.append("ensure")
        self.present = None if self.vanishing else ControlPlaneView(running=True)
        self.on_start()

    async def control_plane_log(self, tail: int = 10) -> str:
        return self.log

    async def gateway_runs(self) -> bool:
        return self.gateway

    async def remove_all(self, data: str, files: tuple[str, ...], image: str) -> list[str]:
        self.calls.append("remove_all")
        return [f"container {self.name}", f"data in {data}"]
