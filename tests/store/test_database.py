"""Order of access to the store: reads first, for a limited time, then one write after another."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest
from sqlmodel import Session

from services.store.database import MAX_READER_PREFERENCE, READERS, Store

pytestmark = pytest.mark.anyio


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "sluice.db")
    yield store
    store.close()


class Work:
    """Work of a transaction that lasts until `end` is called."""

    def __init__(self) -> None:
        self.began = anyio.Event()
        self.ended = False
        self._may_end = threading.Event()

    def end(self) -> None:
        self._may_end.set()

    def __call__(self, _session: Session) -> None:
        anyio.from_thread.run_sync(self.began.set)
        assert self._may_end.wait(20)
        self.ended = True


class Reading(Work):
    """A read that lasts until `end` is called."""

    async def run(self, store: Store) -> None:
        await store.read(self)


async def test_write_waits_for_running_reads(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.store.database.MAX_READER_PREFERENCE", 20)
    reading, order = Reading(), list[str]()

    async def read() -> None:
        await reading.run(store)
        order.append("read")

    async def write() -> None:
        await store.write(lambda _session: order.append("written"))

    with anyio.fail_after(10):
        async with anyio.create_task_group() as group:
            group.start_soon(read)
            await reading.began.wait()
            group.start_soon(write)
            await anyio.wait_all_tasks_blocked()
            assert order == []
            reading.end()
    assert order == ["read", "written"]


async def test_hanging_read_delays_whole_queue_of_writes_only_once(store: Store) -> None:
    reading, written = Reading(), list[int]()
    async with anyio.create_task_group() as group:
        group.start_soon(reading.run, store)
        await reading.began.wait()
        with anyio.fail_after(50 * MAX_READER_PREFERENCE):
            async with anyio.create_task_group() as writing:
                for number in range(200):
                    writing.start_soon(store.write, lambda _session, number=number: written.append(number))
        reading.end()
    assert written == list(range(200))


async def test_writes_never_run_concurrently(store: Store) -> None:
    under_way: list[int] = []

    def work(_session: Session) -> int:
        under_way.append(1)
        seen = len(under_way)
        time.sleep(0.001)  # time for another write to start, if it could
        under_way.pop()
        return seen

    seen: list[int] = []

    async def write() -> None:
        seen.append(await store.write(work))

    async with anyio.create_task_group() as group:
        for _ in range(20):
            group.start_soon(write)
    assert seen == [1] * 20


async def test_reads_beyond_reader_limit_wait_and_complete(store: Store) -> None:
    answers: list[int] = []

    async def read(number: int) -> None:
        answers.append(await store.read(lambda _session: number))

    async with anyio.create_task_group() as group:
        for number in range(READERS * 5):
            group.start_soon(read, number)
        for _ in range(5):
            group.start_soon(store.write, lambda _session: None)
    assert sorted(answers) == list(range(READERS * 5))


async def test_write_cancelled_while_waiting_does_not_block_next_write(store: Store) -> None:
    reading, written = Reading(), list[str]()
    async with anyio.create_task_group() as group:
        group.start_soon(reading.run, store)
        await reading.began.wait()
        with anyio.move_on_after(MAX_READER_PREFERENCE / 10):
            await store.write(lambda _session: written.append("given up"))
        reading.end()
    await store.write(lambda _session: written.append("next"))
    assert written == ["next"]


async def test_write_cancelled_while_another_runs_does_not_block_next_write(store: Store) -> None:
    running, written = Work(), list[str]()
    async with anyio.create_task_group() as group:
        group.start_soon(store.write, running)
        await running.began.wait()
        async with anyio.create_task_group() as queued:
            queued.start_soon(store.write, lambda _session: written.append("given up"))
            await anyio.wait_all_tasks_blocked()
            queued.cancel_scope.cancel()
        running.end()
    with anyio.fail_after(10):
        await store.write(lambda _session: written.append("next"))
    assert written == ["next"]


async def test_write_cancelled_in_its_thread_ends_before_next_write_begins(store: Store) -> None:
    cancelled, order = Work(), list[bool]()
    scope = anyio.CancelScope()

    async def write() -> None:
        with scope:
            await store.write(cancelled)

    async with anyio.create_task_group() as group:
        group.start_soon(write)
        await cancelled.began.wait()
        scope.cancel()
        group.start_soon(store.write, lambda _session: order.append(cancelled.ended))
        await anyio.wait_all_tasks_blocked()
        assert order == []
        cancelled.end()
    assert order == [True]


async def test_read_completes_while_a_write_runs(store: Store) -> None:
    writing = Work()
    async with anyio.create_task_group() as group:
        group.start_soon(store.write, writing)
        await writing.began.wait()
        with anyio.fail_after(10):
            assert await store.read(lambda _session: "read") == "read"
        assert not writing.ended
        writing.end()
