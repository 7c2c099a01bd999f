"""For all tests: asynchronous ones run on asyncio alone, what is interrupted hears it, and a new database is a copy that no
disk is waited for."""

from __future__ import annotations

import gc
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.store import database, migrate, open
from tests.scheduling import ByResource, rank_of

# A shell's background jobs are born deaf to SIGINT, and so would be every process that a test starts and interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)

gc.set_threshold(10_000)
"""As the server does (app.server): looking for garbage was an eighth of the work."""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config) -> ByResource | None:
    """With `--dist loadgroup`, groups as tests/scheduling.py makes them."""
    return ByResource(config) if config.getvalue("dist") == "loadgroup" else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest first; those on real parts before the others."""

    def place(item: pytest.Item) -> int:
        return rank_of(item.nodeid, real=any(item.get_closest_marker(name) for name in ("docker", "browser")))

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

    pragmas = tuple("synchronous=OFF" if pragma.startswith("synchronous") else pragma for pragma in database._PRAGMAS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            database, "_PRAGMAS", pragmas
        )  # what a killed process wrote is kept all the same: no test cuts the power
        patch.setattr(open, "migrate", copied)
        yield
