"""Every kind of deployment, small, from its request to its end, for simulations with crashes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from services.rollouts.requests import commands
from tests.support.controller_simulation import SERVICE
from tests.support.crashing_simulation import CrashingSimulation

Ask = Callable[[CrashingSimulation], Awaitable[int | None]]
LONG = 300.0


@dataclass(frozen=True)
class Kind:
    """One kind of deployment.

    `ask` returns the deployment; `before`: images deployed earlier; `then`: an action in the middle of it; `busy`: seconds
    for which each serving instance has a request in flight.
    """

    ask: Ask
    ends: str = "succeeded"
    before: tuple[str, ...] = ("web:1",)
    replicas: int = 2
    busy: float = 0.3
    then: Callable[[CrashingSimulation, int], Awaitable[None]] | None = None
    reason: str | None = None


def deploy(image: str, **fields: object) -> Ask:
    return lambda simulation: simulation.deploy(image, **fields)


def scale(replicas: int) -> Ask:
    return lambda simulation: simulation.submit(commands.scale(SERVICE, replicas))


async def rollback(simulation: CrashingSimulation) -> int | None:
    return await simulation.submit(commands.rollback(SERVICE, None))


async def restart(simulation: CrashingSimulation) -> int | None:
    return await simulation.submit(commands.restart(SERVICE))


async def remove(simulation: CrashingSimulation) -> int | None:
    return await simulation.submit(commands.remove(SERVICE))


async def abort_when_they_run(simulation: CrashingSimulation, id: int) -> None:
    await simulation.until(lambda: any(row.deployment == id and row.container_id for row in simulation.living()))
    await simulation.insist(id, "abort")


async def abort_when_old_ones_drain(simulation: CrashingSimulation, id: int) -> None:
    await simulation.until(lambda: sum(row.leaving_at is not None for row in simulation.living()) == 2)
    await simulation.insist(id, "abort")


async def deploy_another(simulation: CrashingSimulation, id: int) -> None:
    await simulation.until(lambda: simulation.deployment(id).status != "pending")
    assert (await simulation.ended(await simulation.deploy("web:2"))).status == "succeeded"


KINDS: dict[str, Kind] = {
    "a first deployment": Kind(deploy("web:1", replicas=2), before=()),
    "a deployment": Kind(deploy("web:2")),
    "a deployment in batches": Kind(deploy("web:2", max_surge=0, max_unavailable=1), replicas=3),
    "a deployment that cuts": Kind(deploy("web:2", drain_timeout=5), busy=LONG),
    "recreate": Kind(deploy("web:2", strategy="recreate")),
    "scale out": Kind(scale(4)),
    "scale in": Kind(scale(1), replicas=3),
    "a rollback": Kind(rollback, before=("web:1", "web:2")),
    "a restart": Kind(restart),
    "a removal": Kind(remove),
    "a deployment that exits at once": Kind(deploy("web:dies"), "rolled_back", reason="unhealthy_instance"),
    "a deployment that is never healthy": Kind(deploy("web:never"), "rolled_back", reason="unhealthy_instance"),
    "a first deployment that fails": Kind(deploy("web:dies", replicas=2), "failed", before=()),
    "a deployment past its deadline": Kind(
        deploy("web:never", progress_deadline_seconds=15, healthcheck={"test": ["CMD", "true"], "start_period": 200}),
        "rolled_back",
        reason="progress_deadline_exceeded",
    ),
    "an abort": Kind(deploy("web:never"), "aborted", then=abort_when_they_run, reason="user"),
    "an abort that recalls": Kind(
        deploy("web:2", drain_timeout=60), "aborted", busy=20, then=abort_when_old_ones_drain, reason="user"
    ),
    "a deployment that another overtakes": Kind(deploy("web:slow"), "superseded", then=deploy_another),
}
