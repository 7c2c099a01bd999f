"""The real gateway counts each response once, per revision, across reloads and removals."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace

import pytest

from services.routing.traffic_counts import GATEWAY_REVISION, CountKey
from services.traffic_metrics.histogram import BUCKETS, percentile
from tests.support.gateway_fixture import GatewayFixture, service, until

pytestmark = [pytest.mark.anyio, pytest.mark.docker]


class Counted:
    """All responses counted since this object was made."""

    def __init__(self, gateway_fixture: GatewayFixture) -> None:
        self._yard = gateway_fixture
        self.cells: Counter[CountKey] = Counter()

    async def look(self) -> Counter[CountKey]:
        self.cells.update(await self._yard.gateway.take_response_counts() or {})
        return self.cells

    async def statuses(self) -> Counter[tuple[str, int, int]]:
        await self.look()
        found: Counter[tuple[str, int, int]] = Counter()
        for cell, number in self.cells.items():
            if cell.status is not None:
                found[cell.service, cell.revision, cell.status] += number
        return found

    def percentile(self, share: float) -> float:
        histogram = [0] * BUCKETS
        for cell, number in self.cells.items():
            if cell.bucket is not None:
                histogram[cell.bucket] += number
        found = percentile(histogram, share)
        assert found is not None
        return found


async def counted(gateway_fixture: GatewayFixture) -> Counted:
    made = Counted(gateway_fixture)
    await made.look()
    return made


async def test_responses_are_counted_by_service_revision_and_status(gateway_fixture: GatewayFixture) -> None:
    counts = await counted(gateway_fixture)
    await gateway_fixture.serve(service(), 2)
    await gateway_fixture.serve(service("api", 1), 1)
    for path in ["/web"] * 5 + ["/web/status/404"] * 3 + ["/web/status/500"] * 2 + ["/api"] * 4:
        await gateway_fixture.ask(path)
    assert await counts.statuses() == {("web", 1, 2): 5, ("web", 1, 4): 3, ("web", 1, 5): 2, ("api", 1, 2): 4}
    assert await counts.statuses() == {("web", 1, 2): 5, ("web", 1, 4): 3, ("web", 1, 5): 2, ("api", 1, 2): 4}


async def test_time_to_first_byte_is_counted(gateway_fixture: GatewayFixture) -> None:
    counts = await counted(gateway_fixture)
    await gateway_fixture.serve(service(), 1)
    for _ in range(90):
        await gateway_fixture.ask("/web")
    await asyncio.gather(*(gateway_fixture.ask("/web/slow?seconds=0.4") for _ in range(10)))
    await counts.look()
    assert counts.percentile(0.5) < 0.1
    assert 0.32 < counts.percentile(0.95) < 0.8


async def test_gateway_error_counts_for_the_revision_of_the_failed_instance(gateway_fixture: GatewayFixture) -> None:
    counts = await counted(gateway_fixture)
    (instance,) = await gateway_fixture.serve(service(), 1)
    assert (await gateway_fixture.ask("/web/hang-up", "POST")).status == 502
    assert await counts.statuses() == {("web", 1, 5): 1}
    assert (await gateway_fixture.ask("/web/hang-up", "POST")).status == 502
    await gateway_fixture.gateway.withdraw("web", instance.id)
    await gateway_fixture.gateway.remove("web", instance.id)
    assert await counts.statuses() == {("web", 1, 5): 2}


async def test_queue_timeout_counts_for_no_revision(gateway_fixture: GatewayFixture) -> None:
    counts = await counted(gateway_fixture)
    await gateway_fixture.serve(service(queue_timeout=0.2), 0)
    assert (await gateway_fixture.ask("/web")).status == 503
    assert await counts.statuses() == {("web", GATEWAY_REVISION, 5): 1}


async def test_queued_request_is_counted_once_for_the_revision_that_answers(gateway_fixture: GatewayFixture) -> None:
    counts = await counted(gateway_fixture)
    await gateway_fixture.gateway.publish(service())
    instance = await gateway_fixture.instance("web-r2-1")
    asking = asyncio.create_task(gateway_fixture.ask("/web"))
    await until(gateway_fixture.gateway.queued_requests)
    await gateway_fixture.gateway.admit(instance.endpoint())
    assert (await asking).status == 200
    assert await counts.statuses() == {("web", 2, 2): 1}


async def test_responses_are_counted_once_across_a_reload(gateway_fixture: GatewayFixture) -> None:
    counts = await counted(gateway_fixture)
    await gateway_fixture.serve(service(), 2)
    for patience in (31, 32):
        for number in range(20):
            assert (await gateway_fixture.ask(f"/web/orders/{patience}-{number}", "POST")).status == 200
        await gateway_fixture.gateway.publish(replace(service(), request_timeout=patience))
        assert (await counts.statuses()).total() == sum((await gateway_fixture.ledger.executions()).values())
    assert sum(number for cell, number in counts.cells.items() if cell.bucket is not None) == 40


async def test_counts_under_load_across_reloads_have_no_duplicates_and_few_gaps(gateway_fixture: GatewayFixture) -> None:
    counts = await counted(gateway_fixture)
    await gateway_fixture.serve(service(), 2)
    answered, over = Counter[int](), asyncio.Event()

    async def client(number: int) -> None:
        while not over.is_set():
            path = "/web/status/500" if number == 0 else f"/web/orders/{number}-{answered.total()}"
            answered[(await gateway_fixture.ask(path, "POST")).status] += 1

    clients = [asyncio.create_task(client(number)) for number in range(4)]
    for patience in (31, 32):
        before = answered.total()
        await until(lambda before=before: _more(answered, before + 300))  # type: ignore[misc]
        await gateway_fixture.gateway.publish(replace(service(), request_timeout=patience))
    over.set()
    await asyncio.gather(*clients)
    reported = await counts.statuses()
    assert 0.5 * answered[200] < reported["web", 1, 2] <= answered[200]
    assert 0.5 * answered[500] < reported["web", 1, 5] <= answered[500]


async def _more(answered: Counter[int], than: int) -> bool:
    return answered.total() > than
