"""The semaphore limits concurrency, and a holder that hangs blocks no other task."""

from __future__ import annotations

import anyio
import pytest

from services.concurrency import ExpiringSemaphore

pytestmark = pytest.mark.anyio


async def test_semaphore_runs_two_tasks_at_a_time_and_next_when_one_ends() -> None:
    turns, began = ExpiringSemaphore(2, 600), list[int]()
    ends = [anyio.Event() for _ in range(3)]

    async def one(number: int) -> None:
        async with turns.acquire():
            began.append(number)
            await ends[number].wait()

    with anyio.fail_after(10):
        async with anyio.create_task_group() as group:
            for number in range(3):
                group.start_soon(one, number)
            await anyio.wait_all_tasks_blocked()
            assert began == [0, 1]
            ends[1].set()
            await anyio.wait_all_tasks_blocked()
            assert began == [0, 1, 2]
            ends[0].set()
            ends[2].set()


async def test_permit_of_hanging_task_expires_and_next_task_runs() -> None:
    turns, hangs, answered = ExpiringSemaphore(1, 0.05), anyio.Event(), anyio.Event()

    async def hung() -> None:
        async with turns.acquire():
            hangs.set()
            await answered.wait()

    with anyio.fail_after(10):
        async with anyio.create_task_group() as group:
            group.start_soon(hung)
            await hangs.wait()
            async with turns.acquire():
                answered.set()


async def test_expired_permit_is_released_only_once() -> None:
    turns = ExpiringSemaphore(1, 0.01)
    hanging, answered, at_once, most = anyio.Event(), anyio.Event(), 0, 0

    async def late() -> None:
        async with turns.acquire():
            hanging.set()
            await answered.wait()

    async def short() -> None:
        nonlocal at_once, most
        async with turns.acquire():
            at_once += 1
            most = max(most, at_once)
            await anyio.lowlevel.checkpoint()
            at_once -= 1

    with anyio.fail_after(10):
        async with anyio.create_task_group() as group:
            group.start_soon(late)
            await hanging.wait()
            async with turns.acquire():  # the late task's permit expired; it must be released only once
                answered.set()
        turns._lease = 600
        async with anyio.create_task_group() as group:
            for _ in range(5):
                group.start_soon(short)
    assert most == 1
