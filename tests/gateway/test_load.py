"""Under load no request is lost and none runs twice, whichever change the gateway makes."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from services.loadtest.load_generator import LoadGenerator, Workload
from services.loadtest.request_log import RequestLog as Counted
from tests.support.gateway_fixture import PUBLIC, GatewayFixture, service, until
from tests.support.http_instance import Instance

pytestmark = [pytest.mark.anyio, pytest.mark.docker]
MIX = Workload(rate=150, slow=0.04, slow_seconds=0.7)


def load(gateway_fixture: GatewayFixture, workload: Workload = MIX, **options: Any) -> LoadGenerator:
    return LoadGenerator(f"http://127.0.0.1:{PUBLIC}/web", workload, executions=gateway_fixture.ledger.executions, **options)


def assert_nothing_lost(counted: Counted, at_least: int = 50) -> None:
    assert len(counted.entries) >= at_least
    assert not counted.failures, counted.explain()
    assert not counted.twice
    assert not counted.unrecorded


async def answered(running: LoadGenerator, more: int) -> None:
    """Wait until `more` requests have been answered."""
    before = len(running.request_log.entries)
    await running.until(lambda counted: len(counted.entries) >= before + more)


async def leave(gateway_fixture: GatewayFixture, instance: Instance) -> None:
    """Drain the instance as the planner does: withdraw, wait until drained, stop, remove."""

    async def settled() -> bool:
        endpoint_state = await gateway_fixture.endpoint_state(instance.id)
        return endpoint_state is None or endpoint_state.drained

    await gateway_fixture.gateway.withdraw("web", instance.id)
    await until(settled, 30)
    assert instance.open == 0
    await instance.stop()
    await gateway_fixture.gateway.remove("web", instance.id)


async def test_replaced_instances_lose_no_request(gateway_fixture: GatewayFixture) -> None:
    present = await gateway_fixture.serve(service(), 3)
    async with load(gateway_fixture) as running:
        await answered(running, 50)
        for revision in (2, 3):
            new = [await gateway_fixture.instance(f"web-r{revision}-{n}") for n in (1, 2, 3)]
            await asyncio.gather(*(gateway_fixture.gateway.admit(instance.endpoint()) for instance in new))
            await asyncio.gather(*(leave(gateway_fixture, instance) for instance in present))
            present = new
            await answered(running, 50)
    assert_nothing_lost(running.request_log)
    assert set(running.request_log.versions()) == {f"web-r{revision}-{n}" for revision in (1, 2, 3) for n in (1, 2, 3)}


async def test_reloads_lose_no_request_and_hide_no_drain(gateway_fixture: GatewayFixture) -> None:
    first, second, third = await gateway_fixture.serve(service(), 3)
    async with load(gateway_fixture) as running:
        await answered(running, 100)
        withdrawing = asyncio.create_task(leave(gateway_fixture, first))
        await gateway_fixture.gateway.publish(service("other1", 1))
        leaving_too = asyncio.create_task(leave(gateway_fixture, second))
        await gateway_fixture.gateway.publish(service("other2", 2))
        await asyncio.gather(withdrawing, leaving_too)
        await answered(running, 100)
    assert_nothing_lost(running.request_log)
    assert running.request_log.entries[-1].answered_by == third.id


async def test_killed_instance_loses_no_get_and_runs_no_post_twice(
    gateway_fixture: GatewayFixture,
) -> None:
    instances = await gateway_fixture.serve(service(), 3)
    starts = [0, 0, 0]
    async with load(gateway_fixture, Workload(rate=150, slow=0.04, slow_seconds=0.2)) as running:
        for number in range(6):
            await answered(running, 150)  # Otherwise a request could meet two killed instances.
            victim, dead = instances[number % 3], starts[number % 3]
            victim.kill()
            await gateway_fixture.gateway.mark_dead("web", victim.id, f"c1@{dead}" if dead else "c1@t1")
            starts[number % 3] = number + 1
            await victim.start()
            await gateway_fixture.gateway.admit(victim.endpoint(f"c1@{number + 1}"))
    lost = running.request_log.failures
    assert not [entry for entry in lost if entry.kind != "POST"], running.request_log.explain()
    assert len(lost) <= 10, running.request_log.explain()
    assert not running.request_log.twice


async def test_killed_only_instance_loses_no_get_without_upstream_keepalive(gateway_fixture: GatewayFixture) -> None:
    [only] = await gateway_fixture.serve(service(upstream_keepalive=False), 1)
    async with load(gateway_fixture, Workload(rate=150, posts=0, slow=0.02, slow_seconds=0.2)) as running:
        for start in (2, 3, 4):
            await answered(running, 150)
            only.kill()
            await gateway_fixture.gateway.mark_dead("web", only.id, f"c1@t{start - 1}")
            await until(lambda: held(gateway_fixture, 5))
            await only.start()
            await gateway_fixture.gateway.admit(only.endpoint(f"c1@t{start}"))
        await answered(running, 60)
    assert_nothing_lost(running.request_log)


async def test_requests_without_an_available_instance_wait_for_the_next(gateway_fixture: GatewayFixture) -> None:
    [old] = await gateway_fixture.serve(service(queue_timeout=30), 1)
    async with load(gateway_fixture, Workload(rate=30, slow=0.04, slow_seconds=0.3)) as running:
        await answered(running, 30)
        await leave(gateway_fixture, old)
        new = await gateway_fixture.instance("web-r2-1")
        asking = asyncio.create_task(gateway_fixture.ask("/web/orders/waits", "POST"))
        await asyncio.wait([asking], timeout=0.5)
        assert not asking.done(), asking.result()
        await gateway_fixture.gateway.admit(new.endpoint())
        assert (await asking).headers["x-instance"] == "web-r2-1"
        await answered(running, 30)
    assert_nothing_lost(running.request_log)
    assert gateway_fixture.ledger.orders["waits"] == 1


async def test_queued_requests_survive_a_reload(gateway_fixture: GatewayFixture) -> None:
    await gateway_fixture.gateway.publish(service(queue_timeout=10))
    asking = [asyncio.create_task(gateway_fixture.ask(f"/web/orders/{n}", "POST")) for n in range(20)]
    await until(lambda: held(gateway_fixture, 20))
    await gateway_fixture.gateway.publish(service("other", 1))
    await until(lambda: held(gateway_fixture, 20))
    await gateway_fixture.gateway.publish(service("another", 2))
    instance = await gateway_fixture.instance("web-r1-1")
    await gateway_fixture.gateway.admit(instance.endpoint())
    assert {answer.status for answer in await asyncio.gather(*asking)} == {200}
    assert set(gateway_fixture.ledger.orders.values()) == {1}


async def test_queue_timeout_answers_503_with_retry_after(gateway_fixture: GatewayFixture) -> None:
    await gateway_fixture.gateway.publish(service(queue_timeout=0.5))
    began = asyncio.get_running_loop().time()
    answer = await gateway_fixture.ask("/web")
    assert (answer.status, answer.headers["retry-after"]) == (503, "1")
    assert 0.4 < asyncio.get_running_loop().time() - began < 2
    await gateway_fixture.gateway.publish(service(queue_timeout=0))
    assert (await gateway_fixture.ask("/web")).status == 503


async def test_queue_holds_at_most_500_requests_of_a_service(gateway_fixture: GatewayFixture) -> None:
    await gateway_fixture.gateway.publish(service(queue_timeout=20))
    asking = [asyncio.create_task(gateway_fixture.ask(f"/web/orders/{n}", "POST")) for n in range(520)]
    done, waiting = await asyncio.wait(asking, timeout=3)
    assert {task.result().status for task in done} == {503}
    assert len(waiting) == 500
    [instance] = await gateway_fixture.serve(service(queue_timeout=20), 1)
    answers = [task.result().status for task in (await asyncio.wait(waiting, timeout=20))[0]]
    assert answers == [200] * 500
    assert len(instance.asked) == 500
    assert not await held(gateway_fixture, 1)


async def held(gateway_fixture: GatewayFixture, at_least: int) -> bool:
    shown = await gateway_fixture.gateway.queued_requests()
    return sum(shown.values()) >= at_least
