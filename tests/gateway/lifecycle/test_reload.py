"""A port that another process listens on fails only the service that needs it."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.gateway.config.model import DesiredBackend
from services.gateway.lifecycle.config_state import ConfigState
from services.routing.port import RoutedService, RoutingError
from tests.support.fake_haproxy_master import FakeMaster, content, reloader_of
from tests.support.gateway_fixture import BRIDGE, INTERNAL, service

pytestmark = pytest.mark.anyio
BUSY = INTERNAL + 1


@pytest.fixture
def master(tmp_path: Path) -> FakeMaster:
    return FakeMaster(tmp_path)


@pytest.fixture(autouse=True)
def other_process() -> Iterator[None]:
    """Listen on the internal port of the second service."""
    with socket.create_server((BRIDGE, BUSY)):
        yield


def backends(*services: RoutedService) -> dict[str, DesiredBackend]:
    return {each.name: DesiredBackend(each) for each in services}


async def restart(master: FakeMaster) -> tuple[ConfigState, list[str]]:
    """Restore `web` and `busy` with a new process's state, and return the services that the gateway then has."""
    config = ConfigState(master.directory)
    reloader = reloader_of(master, config)
    reloader.adopt(master.settings)
    await reloader.restore(backends(service(), service("busy", 1)))
    assert await reloader.is_loaded()
    return config, list(config.desired)


async def test_restore_leaves_out_only_the_new_service_whose_port_is_in_use(master: FakeMaster) -> None:
    first = ConfigState(master.directory)
    first.adopt(master.settings)
    await master.start()
    _, present = await restart(master)
    assert present == ["web"]
    assert '"busy"' not in content(master.directory)["haproxy.cfg"]


async def test_restore_keeps_the_old_port_of_a_service_whose_new_port_is_in_use(master: FakeMaster) -> None:
    first = ConfigState(master.directory)
    first.adopt(master.settings)
    first.set_backends(backends(service(), service("busy", 2)))
    await master.start()
    config, present = await restart(master)
    assert sorted(present) == ["busy", "web"]
    assert config.desired["busy"].service.internal_port == INTERNAL + 2


async def test_restore_drops_no_service_if_a_running_gateway_may_hold_the_port(master: FakeMaster) -> None:
    first = ConfigState(master.directory)
    first.adopt(master.settings)
    first.set_backends(backends(service("busy", 1)))
    await master.start()
    (master.directory / "haproxy.cfg").unlink()
    with pytest.raises(RoutingError, match="in use on this machine"):
        await restart(master)


async def test_reload_fails_only_the_pending_service_whose_port_is_in_use(master: FakeMaster) -> None:
    config = ConfigState(master.directory)
    reloader = reloader_of(master, config)
    reloader.adopt(master.settings)
    await master.start()
    await reloader.restore({})
    with pytest.raises(RoutingError, match="in use on this machine") as failed:
        await reloader.reload(service("busy", 1))
    assert failed.value.lasting
    await reloader.reload(service())
    assert list(config.desired) == ["web"]


async def test_gateway_that_cannot_start_loses_only_the_services_whose_ports_are_in_use(master: FakeMaster) -> None:
    first = ConfigState(master.directory)
    first.adopt(master.settings)
    first.set_backends(backends(service(), service("busy", 1)))
    config = ConfigState(master.directory)
    reloader = reloader_of(master, config)
    reloader.adopt(master.settings)
    assert reloader.drop_unbindable() == ["busy"]
    assert list(config.desired) == ["web"] and '"busy"' not in content(master.directory)["haproxy.cfg"]
    await master.start()
    await reloader.restore(backends(service(), service("busy", 1)))
    assert list(config.desired) == ["web"]
    assert reloader.drop_unbindable() == [], "the controller counts on what it has published"
