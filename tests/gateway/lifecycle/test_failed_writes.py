"""After a write that failed, or a reload that failed, memory and files are as before."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from services.gateway.lifecycle.config_state import ConfigState
from services.gateway.lifecycle.reload import Reloader
from services.routing.port import RoutingError
from tests.support.fake_haproxy_master import FakeMaster, content, reloader_of
from tests.support.gateway_fixture import service

pytestmark = pytest.mark.anyio


@pytest.fixture
def master(tmp_path: Path) -> FakeMaster:
    return FakeMaster(tmp_path)


@pytest.fixture
def config(master: FakeMaster) -> ConfigState:
    return ConfigState(master.directory)


@pytest.fixture
async def reloader(master: FakeMaster, config: ConfigState) -> Reloader:
    """Return the reloader of a gateway that has loaded a service `web`."""
    made = reloader_of(master, config)
    made.adopt(master.settings)
    await master.start()
    await made.restore({"web": config.backend_for(service())})
    return made


def fill_disk(directory: Path) -> Callable[[], None]:
    """Make the write of haproxy.cfg fail, and return a function that makes it possible again."""
    obstacle = directory / ".haproxy.cfg.new"
    obstacle.mkdir()
    return obstacle.rmdir


async def test_failed_write_of_a_new_backend_changes_neither_memory_nor_files(
    master: FakeMaster, config: ConfigState, reloader: Reloader
) -> None:
    files, desired = content(master.directory), config.desired
    free = fill_disk(master.directory)
    with pytest.raises(RoutingError, match="cannot be written"):
        config.set_backend(config.backend_for(service("other", 1)))
    assert (content(master.directory), config.desired) == (files, desired)
    free()
    config.set_backend(config.backend_for(service("other", 1)))
    assert '"other"' in content(master.directory)["haproxy.cfg"]
    assert "/other/ other:6\n" in content(master.directory)["routes.map"]


async def test_failed_write_of_a_removal_changes_neither_memory_nor_files(
    master: FakeMaster, config: ConfigState, reloader: Reloader
) -> None:
    files, desired = content(master.directory), config.desired
    free = fill_disk(master.directory)
    with pytest.raises(RoutingError, match="cannot be written"):
        config.remove_backend("web")
    assert (content(master.directory), config.desired) == (files, desired)
    free()
    config.remove_backend("web")
    assert config.desired == {} and content(master.directory)["routes.map"] == ""


async def test_failed_write_of_new_settings_changes_neither_memory_nor_files(
    master: FakeMaster, config: ConfigState, reloader: Reloader
) -> None:
    files, settings = content(master.directory), config.settings
    fill_disk(master.directory)
    with pytest.raises(RoutingError, match="cannot be written"):
        config.write_all(master.other_settings)
    assert (content(master.directory), config.settings) == (files, settings)


async def test_failed_write_of_a_reload_changes_neither_memory_nor_files(
    master: FakeMaster, config: ConfigState, reloader: Reloader
) -> None:
    files, desired = content(master.directory), config.desired
    free = fill_disk(master.directory)
    with pytest.raises(RoutingError, match="cannot be written"):
        await reloader.reload(service("other", 1))
    assert (content(master.directory), config.desired, await reloader.is_loaded()) == (files, desired, True)
    free()
    await reloader.reload(service("other", 1))
    assert list(config.desired) == ["web", "other"] and await reloader.is_loaded()


async def test_rejected_reload_restores_memory_and_files_on_a_full_disk(
    master: FakeMaster, config: ConfigState, reloader: Reloader
) -> None:
    files, desired = content(master.directory), config.desired
    master.on_reload = lambda: fill_disk(master.directory)
    master.rejects = True
    with pytest.raises(RoutingError, match="refused"):
        await reloader.reload(service("other", 1))
    assert (content(master.directory), config.desired) == (files, desired)


async def test_takeover_that_fails_restores_settings_and_files(
    master: FakeMaster, config: ConfigState, reloader: Reloader
) -> None:
    files, settings = content(master.directory), config.settings
    with reloader.hand_over_to(master.other_settings):
        assert '"maxconn": 300' in content(master.directory)["haproxy.cfg"]
    assert (content(master.directory), config.settings) == (files, settings)
    with reloader.hand_over_to(master.other_settings) as mark_loaded:
        mark_loaded()
    assert config.settings == master.other_settings
    assert '"maxconn": 300' in content(master.directory)["haproxy.cfg"]


async def test_unexpected_error_fails_its_reload_and_delays_no_later_change(
    master: FakeMaster, config: ConfigState, reloader: Reloader
) -> None:
    later = list[asyncio.Task[None]]()

    def break_off() -> None:
        master.on_reload = lambda: None
        later.append(asyncio.create_task(reloader.reload(service("later", 2))))
        raise ValueError("no number")

    master.on_reload = break_off
    with pytest.raises(RoutingError, match="no number"):
        await reloader.reload(service("other", 1))
    async with asyncio.timeout(20):
        await later[0]
    assert list(config.desired) == ["web", "later"] and await reloader.is_loaded()
