"""What a real gateway counts is what was asked of it: each answer once, under its revision, across reloads and removals."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace

import pytest

from services.routing.traffic_counts import NOBODY, Cell
from services.traffic_metrics.histogram import BUCKETS, percentile
from tests.support.gateway_fixture import Yard, service, until

pytestmark = [pytest.mark.anyio, pytest.mark.docker]


class Counted:
    """All that was counted since it was made."""

    def __init__(self, yard: Yard) -> None:
        self._yard = yard
        self.cells: Counter[Cell] = Counter()

    async def look(self) -> Counter[Cell]:
        self.cells.update(await self._yard.gateway.answered() or {})
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


async def counted(yard: Yard) -> Counted:
    made = Counted(yard)
    await made.look()
    return made


async def test_answers_are_counted_by_service_revision_and_status(yard: Yard) -> None:
    counts = await counted(yard)
    await yard.serve(service(), 2)
    await yard.serve(service("api", 1), 1)
    for path in ["/web"] * 5 + ["/web/status/404"] * 3 + ["/web/status/500"] * 2 + ["/api"] * 4:
        await yard.ask(path)
    assert await counts.statuses() == {("web", 1, 2): 5, ("web", 1, 4): 3, ("web", 1, 5): 2, ("api", 1, 2): 4}
    assert await counts.statuses() == {("web", 1, 2): 5, ("web", 1, 4): 3, ("web", 1, 5): 2, ("api", 1, 2): 4}


async def test_the_time_until_an_answer_began_is_told(yard: Yard) -> None:
    counts = await counted(yard)
    await yard.serve(service(), 1)
    for _ in range(90):
        await yard.ask("/web")
    await asyncio.gather(*(yard.ask("/web/slow?seconds=0.4") for _ in range(10)))
    await counts.look()
    assert counts.percentile(0.5) < 0.1
    assert 0.32 < counts.percentile(0.95) < 0.8


async def test_what_the_gateway_answers_itself_is_an_error_of_the_instance_that_failed(yard: Yard) -> None:
    counts = await counted(yard)
    (instance,) = await yard.serve(service(), 1)
    assert (await yard.ask("/web/hang-up", "POST")).status == 502
    assert await counts.statuses() == {("web", 1, 5): 1}
    assert (await yard.ask("/web/hang-up", "POST")).status == 502
    await yard.gateway.withdraw("web", instance.id)
    await yard.gateway.forget("web", instance.id)
    assert await counts.statuses() == {("web", 1, 5): 2}


async def test_that_no_instance_came_is_nobodys_error(yard: Yard) -> None:
    counts = await counted(yard)
    await yard.serve(service(queue_timeout=0.2), 0)
    assert (await yard.ask("/web")).status == 503
    assert await counts.statuses() == {("web", NOBODY, 5): 1}


async def test_what_was_held_is_counted_once_under_who_answered(yard: Yard) -> None:
    counts = await counted(yard)
    await yard.gateway.publish(service())
    instance = await yard.instance("web-r2-1")
    asking = asyncio.create_task(yard.ask("/web"))
    await until(yard.gateway.held)
    await yard.gateway.admit(instance.member())
    assert (await asking).status == 200
    assert await counts.statuses() == {("web", 2, 2): 1}


async def test_across_a_reload_every_answer_is_counted_once(yard: Yard) -> None:
    counts = await counted(yard)
    await yard.serve(service(), 2)
    for patience in (31, 32):
        for number in range(20):
            assert (await yard.ask(f"/web/orders/{patience}-{number}", "POST")).status == 200
        await yard.gateway.publish(replace(service(), request_timeout=patience))
        assert (await counts.statuses()).total() == sum((await yard.ledger.executions()).values())
    assert sum(number for cell, number in counts.cells.items() if cell.bucket is not None) == 40


async def test_under_load_across_reloads_nothing_is_counted_twice_and_little_is_missed(yard: Yard) -> None:
    counts = await counted(yard)
    await yard.serve(service(), 2)
    answered, over = Counter[int](), asyncio.Event()

    async def client(number: int) -> None:
        while not over.is_set():
            path = "/web/status/500" if number == 0 else f"/web/orders/{number}-{answered.total()}"
            answered[(await yard.ask(path, "POST")).status] += 1

    clients = [asyncio.create_task(client(number)) for number in range(4)]
    for patience in (31, 32):
        before = answered.total()
        await until(lambda before=before: _more(answered, before + 300))  # type: ignore[misc]
        await yard.gateway.publish(replace(service(), request_timeout=patience))
    over.set()
    await asyncio.gather(*clients)
    told = await counts.statuses()
    assert 0.5 * answered[200] < told["web", 1, 2] <= answered[200]
    assert 0.5 * answered[500] < told["web", 1, 5] <= answered[500]


async def _more(answered: Counter[int], than: int) -> bool:
    return answered.total() > than
