"""The gateway's upgrade: killed at any step, the next start completes or undoes it."""

from __future__ import annotations

import pytest

from services.engine.port import EngineError
from services.infrastructure.bootstrap import Infrastructure, InfrastructureSettings
from services.infrastructure.gateway_upgrade import GatewayNotReady
from services.routing.port import RoutingError
from tests.support.fake_gateway_process import FakeGatewayProcess
from tests.support.fakes.infrastructure import FakeContainer, FakeInfrastructureEngine, ProcessKilled

pytestmark = pytest.mark.anyio
STEPS = (
    "start_next_gateway",
    "promote_next_gateway",
    "rename_next_gateway",
    "drain_gateway",
)


def ground_of(engine: FakeInfrastructureEngine, gateway: FakeGatewayProcess) -> Infrastructure:
    """Return the infrastructure of a new process, which has no state of its own."""
    settings = InfrastructureSettings(data=gateway.directory, gateway_image="sluice-gateway:1", maxconn=500)
    return Infrastructure(engine, gateway, settings, timeout=0.5)


def end(container: FakeContainer | None) -> None:
    assert container is not None
    container.running = False


def running(container: FakeContainer | None) -> str:
    assert container is not None and container.running
    return container.id


async def standing(engine: FakeInfrastructureEngine, gateway: FakeGatewayProcess) -> Infrastructure:
    infrastructure = ground_of(engine, gateway)
    await infrastructure.ensure()
    return infrastructure


async def test_upgrade_replaces_an_outdated_gateway_and_drains_the_old_one(
    engine: FakeInfrastructureEngine, gateway: FakeGatewayProcess
) -> None:
    engine.outdated = True
    infrastructure = await standing(engine, gateway)
    old = engine.present
    assert infrastructure.outdated is not None
    replaced = await infrastructure.upgrade()
    assert replaced is not None and old is not None and engine.present is not None
    assert (replaced.container_id, replaced.previous_id) == (engine.present.id, old.id)
    assert gateway.listener == engine.present.id and engine.present.auto_restart
    assert engine.predecessors == [old] and old.draining and not old.auto_restart
    assert not infrastructure.outdated
    assert [old_gateway.id for old_gateway in gateway.old_sockets.old_gateways()] == [old.short_id]
    await infrastructure.ensure()
    assert engine.predecessors == [old], "it has requests in flight"
    old.running = False
    await infrastructure.ensure()
    assert engine.predecessors == [] and gateway.old_sockets.old_gateways() == []
    assert sorted(path.name for path in gateway.directory.glob("*.sock")) == ["admin.sock", "master.sock"]


async def test_upgrade_replaces_a_current_gateway_only_if_forced(
    engine: FakeInfrastructureEngine, gateway: FakeGatewayProcess
) -> None:
    infrastructure = await standing(engine, gateway)
    assert await infrastructure.upgrade() is None
    assert "start_next_gateway" not in engine.calls
    assert await infrastructure.upgrade(force=True) is not None


async def test_several_old_gateways_may_drain_at_the_same_time(
    engine: FakeInfrastructureEngine, gateway: FakeGatewayProcess
) -> None:
    infrastructure = await standing(engine, gateway)
    for _ in range(3):
        assert await infrastructure.upgrade(force=True)
    assert len(engine.predecessors) == len(gateway.old_sockets.old_gateways()) == 3


async def test_new_gateway_that_exits_at_its_start_changes_nothing(
    engine: FakeInfrastructureEngine, gateway: FakeGatewayProcess
) -> None:
    infrastructure = await standing(engine, gateway)
    engine.next_ends_at_once = True
    engine.log = "unknown keyword 'bnid'"
    before = engine.present
    with pytest.raises(GatewayNotReady, match=r"exited at its start(.|\n)*bnid"):
        await infrastructure.upgrade(force=True)
    assert engine.present is before and engine.next is None and gateway.old_sockets.old_gateways() == []
    assert before is not None and gateway.listener == before.id and before.auto_restart
    assert not infrastructure.upgrading


async def test_new_gateway_that_never_answers_returns_the_listeners(
    engine: FakeInfrastructureEngine, gateway: FakeGatewayProcess
) -> None:
    infrastructure = await standing(engine, gateway)
    before = engine.present
    gateway.unanswered = 1_000_000
    with pytest.raises(GatewayNotReady, match="does not answer within"):
        await infrastructure.upgrade(force=True)
    assert before is not None and gateway.listener == before.id
    assert engine.next is None and engine.present is before


@pytest.mark.parametrize("step", STEPS)
async def test_upgrade_killed_at_any_step_is_completed_or_undone_by_the_next_start(
    engine: FakeInfrastructureEngine, gateway: FakeGatewayProcess, step: str
) -> None:
    infrastructure = await standing(engine, gateway)
    old = engine.present
    engine.dies_before = step
    with pytest.raises(ProcessKilled):
        await infrastructure.upgrade(force=True)
    await ground_of(engine, gateway).ensure()
    assert old is not None and engine.present is not None and engine.next is None
    assert engine.present.auto_restart and gateway.listener == engine.present.id
    if step == "start_next_gateway":
        assert engine.present is old and engine.predecessors == [] and gateway.old_sockets.old_gateways() == []
    else:
        assert engine.present is not old and engine.predecessors == [old]
        assert old.draining and not old.auto_restart
        assert [each.draining_for is not None for each in gateway.old_sockets.old_gateways()] == [True]


async def test_upgrade_is_undone_if_the_new_gateway_has_died(
    engine: FakeInfrastructureEngine, gateway: FakeGatewayProcess
) -> None:
    infrastructure = await standing(engine, gateway)
    old = engine.present
    engine.dies_before = "promote_next_gateway"
    with pytest.raises(ProcessKilled):
        await infrastructure.upgrade(force=True)
    end(engine.next)
    await ground_of(engine, gateway).ensure()
    assert engine.present is old and engine.next is None
    assert old is not None and gateway.listener == old.id and old.auto_restart


async def test_failed_promotion_of_the_new_gateway_is_retried(
    engine: FakeInfrastructureEngine, gateway: FakeGatewayProcess
) -> None:
    infrastructure = await standing(engine, gateway)
    promote = engine.promote_next_gateway

    async def refuse() -> None:
        raise EngineError("hangs", transient=True)

    engine.promote_next_gateway = refuse  # type: ignore[method-assign]
    with pytest.raises(EngineError):
        await infrastructure.upgrade(force=True)
    old, *_ = gateway.old_sockets.old_gateways()
    assert old.draining_for is None, "it has not been asked to drain"
    engine.promote_next_gateway = promote  # type: ignore[method-assign]
    await infrastructure.ensure()
    assert engine.next is None and gateway.listener == running(engine.present)


async def test_upgrade_without_a_running_gateway_is_refused(
    engine: FakeInfrastructureEngine, gateway: FakeGatewayProcess
) -> None:
    infrastructure = await standing(engine, gateway)
    engine.present = None
    with pytest.raises(RoutingError, match="No gateway is running"):
        await infrastructure.upgrade(force=True)


async def test_maxconn_is_limited_by_the_running_container_until_the_upgrade(
    engine: FakeInfrastructureEngine, gateway: FakeGatewayProcess
) -> None:
    await standing(engine, gateway)
    engine.open_files = 4_600
    infrastructure = ground_of(engine, gateway)
    await infrastructure.ensure()
    assert gateway.configured[-1].maxconn == 300
    await infrastructure.upgrade(force=True)
    assert gateway.configured[-1].maxconn == 500


async def test_stopped_gateway_degrades_the_infrastructure(
    engine: FakeInfrastructureEngine, gateway: FakeGatewayProcess
) -> None:
    infrastructure = await standing(engine, gateway)
    assert engine.present is not None
    engine.present.running = False
    assert await infrastructure.wait_until_degraded() == "gateway"
    await infrastructure.ensure()
    assert engine.present.running and gateway.listener == engine.present.id


async def test_drained_gateway_is_removed_in_the_background(
    engine: FakeInfrastructureEngine, gateway: FakeGatewayProcess
) -> None:
    infrastructure = await standing(engine, gateway)
    await infrastructure.upgrade(force=True)
    engine.predecessors[0].running = False
    answers = gateway.status

    async def until_put_away() -> dict[str, object] | None:
        return await answers() if engine.predecessors else None

    gateway.status = until_put_away  # type: ignore[method-assign]
    await infrastructure.wait_until_degraded()
    assert engine.predecessors == [] and gateway.old_sockets.old_gateways() == []
