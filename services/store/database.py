"""The SQLite database (docs/why-sqlite-in-threads.md): one file in WAL mode, used from threads.

One writer begins transactions IMMEDIATE, and a few readers read beside it. All access is synchronous.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from json import JSONDecoder
from pathlib import Path
from typing import Any, TypeVar

import anyio
import anyio.to_thread
from anyio import CapacityLimiter
from sqlalchemy import Engine, create_engine, event
from sqlmodel import Session

T = TypeVar("T")
_PRAGMAS = ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "busy_timeout=5000")
READERS = 2
"""Number of readers. More readers do not help: the GIL serialises them."""
MAX_READER_PREFERENCE = 0.2
"""Maximum time for which a write waits for reads to end, in seconds.

Users wait for reads. Beside the writes of many deployments, each of many short reads would otherwise wait for the
interpreter again and again (docs/why-sqlite-in-threads.md).
"""
_JSON = JSONDecoder()


class Store:
    """The database. `write_session` and `read_session` are whole transactions.

    No network call belongs inside a transaction.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._writer = _engine(path, "BEGIN IMMEDIATE", pool_size=1)
        self._reader = _engine(path, "BEGIN", pool_size=READERS)
        self._write_lock = anyio.Lock()
        self._writer_thread = CapacityLimiter(1)
        self._reader_threads = CapacityLimiter(READERS)
        self._reading = 0
        self._no_reads: anyio.Event | None = None
        """The event that a write waits for."""
        self.run = 0
        """The fencing number of this process, if `open_store` opened the store."""
        self._close_callbacks: list[Callable[[], None]] = []

    @contextmanager
    def write_session(self) -> Iterator[Session]:
        """Open a write transaction, committed at the end and rolled back on an exception.

        It is for synchronous code in a thread.
        """
        with Session(self._writer, expire_on_commit=False) as session, session.begin():
            yield session

    @contextmanager
    def read_session(self) -> Iterator[Session]:
        """Open a read transaction with one consistent view."""
        with Session(self._reader, expire_on_commit=False) as session, session.begin():
            yield session

    async def write(self, work: Callable[[Session], T]) -> T:
        """Run `work` in a write transaction in a thread. Its result must not need the session any more."""

        def transaction() -> T:
            with self.write_session() as session:
                return work(session)

        return await self._run_write(transaction)

    async def run_and_roll_back(self, work: Callable[[Session], T]) -> T:
        """Run `work` in a write transaction that is rolled back. Its result must hold no rows."""

        def transaction() -> T:
            with Session(self._writer) as session:
                return work(session)  # closing without a commit is a rollback

        return await self._run_write(transaction)

    async def read(self, work: Callable[[Session], T]) -> T:
        """Run `work` in a read transaction in a thread."""

        def transaction() -> T:
            with self.read_session() as session:
                return work(session)

        self._reading += 1
        try:
            return await anyio.to_thread.run_sync(transaction, limiter=self._reader_threads)
        finally:
            self._reading -= 1
            if not self._reading and self._no_reads is not None:
                self._no_reads.set()

    async def _run_write(self, transaction: Callable[[], T]) -> T:
        """Run write transactions one after another, each while no read runs if possible.

        A write that holds the lock does not wait for reads later than MAX_READER_PREFERENCE seconds after it was requested.
        A write whose cancel scope is cancelled in its thread holds the lock until its transaction has ended. A task that is
        cancelled otherwise does not, and the next write then waits in its thread for the only connection.
        """
        deadline = anyio.current_time() + MAX_READER_PREFERENCE
        async with self._write_lock:
            with anyio.CancelScope(deadline=deadline):
                while self._reading:
                    self._no_reads = anyio.Event()
                    await self._no_reads.wait()
            return await anyio.to_thread.run_sync(transaction, limiter=self._writer_thread)

    def on_close(self, callback: Callable[[], None]) -> None:
        """Register `callback` to be called after the store has been closed."""
        self._close_callbacks.append(callback)

    def close(self) -> None:
        self._writer.dispose()
        self._reader.dispose()
        while self._close_callbacks:
            self._close_callbacks.pop()()


def _value_of(document: str) -> Any:
    """Decode JSON like json.loads, in half of its time for a few values.

    json.loads also looks for surrounding blanks, which Sluice never writes.
    """
    return _JSON.raw_decode(document)[0]


def _engine(path: Path, begin: str, *, pool_size: int) -> Engine:
    # hide_parameters: otherwise an error's text would contain the values to write, secrets included
    engine = create_engine(
        f"sqlite:///{path}",
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=30,
        hide_parameters=True,
        json_deserializer=_value_of,
    )

    @event.listens_for(engine, "connect")
    def _pragmas(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # the driver must not begin transactions: it would begin DEFERRED
        for pragma in _PRAGMAS:
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def _begin(connection: Any) -> None:
        connection.exec_driver_sql(begin)

    return engine
