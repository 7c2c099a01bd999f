"""Configuration of all tests: asyncio as only backend, interruptible child processes, fast databases."""

from __future__ import annotations

import gc
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from services.store import database, migrate
from services.store import open as store_open
from tests.scheduling import ByResource, rank_of

# A shell starts background jobs with SIGINT ignored, and child processes of tests would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

gc.set_threshold(10_000)
"""The threshold of app.server: garbage collection was an eighth of the work."""


# A busy machine makes neither an example nor its generation wrong: Hypothesis would fail the test for either.
settings.register_profile("any_machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any_machine")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config) -> ByResource | None:
    """Group tests for `--dist loadgroup` by tests/scheduling.py."""
    return ByResource(config) if config.getvalue("dist") == "loadgroup" else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sort tests: the longest first, and those on real parts before the others."""

    def place(item: pytest.Item) -> int:
        return rank_of(item.nodeid, real=any(item.get_closest_marker(name) for name in ("docker", "browser")))

    items.sort(key=place)


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session", autouse=True)
def _migrated_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Create each new database as a copy of one that was migrated once, without waiting for the disk.

    Hundreds of tests start with a new database.
    """
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
        )  # safe without syncing: a killed process's writes survive, and no test cuts the power
        patch.setattr(store_open, "migrate", copied)
        yield
