"""For all tests: asynchronous ones run on asyncio alone, what is interrupted hears it, and a new database is a copy that no
disk is waited for."""

from __future__ import annotations

import gc
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.store import db, migrate, open

# A shell's background jobs are born deaf to SIGINT, and so would be every process that a test starts and interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)

gc.set_threshold(10_000)
"""As the server does (app.serve): looking for garbage was an eighth of the work."""


LONGEST = (
    "test_engine.py", "test_plan_properties.py", "test_on_real_parts.py", "test_upgrades.py", "test_sluices_registry.py",
    "test_their_eureka.py",
)  # fmt: skip
"""Begun first, so that one process is not left with them when the others have nothing more to do."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files in this order: the longest, those with an engine, those without, the browser's: while containers come and go
    the machine's networks change, and Chromium gives up what it was loading (ERR_NETWORK_CHANGED)."""
    marked: dict[Path, set[str]] = {}
    for item in items:
        marked.setdefault(item.path, set()).update(mark.name for mark in item.iter_markers())

    def place(item: pytest.Item) -> int:
        if item.path.name in LONGEST:
            return 0
        if "docker" in marked[item.path]:
            return 1
        return 3 if "browser" in marked[item.path] else 2

    items.sort(key=place)


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session", autouse=True)
def _migrated_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A database that is not there yet is a copy of one that the migrations made: hundreds of tests begin with one. None
    waits for the disk."""
    directory = tmp_path_factory.mktemp("migrated")
    made = directory / "sluice.db"
    migrate.migrate(made, directory / "backups")

    def copied(path: Path, backups: Path) -> None:
        if not path.exists():
            path.write_bytes(made.read_bytes())
        migrate.migrate(path, backups)

    pragmas = tuple("synchronous=OFF" if pragma.startswith("synchronous") else pragma for pragma in db._PRAGMAS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(db, "_PRAGMAS", pragmas)  # what a killed process wrote is kept all the same: no test cuts the power
        patch.setattr(open, "migrate", copied)
        yield
