"""The gateway's files and container: adopted, repaired, rolled back, sufficient without Sluice."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from dataclasses import replace
from typing import Any

import pytest
from structlog.testing import capture_logs

from services.gateway.config import health_checks, render
from services.gateway.haproxy import HaproxyRouter
from services.gateway.runtime.runtime_api import RuntimeApi
from services.loadtest.http1_client import Connection, request
from services.routing.port import EndpointState, RoutingError
from services.spec import Route
from tests.support.gateway_fixture import BRIDGE, INTERNAL, PUBLIC, GatewayFixture, service, until

pytestmark = [pytest.mark.anyio, pytest.mark.docker]


async def test_killed_gateway_restarts_without_sluice_with_the_right_instances(gateway_fixture: GatewayFixture) -> None:
    first, second, third = await gateway_fixture.serve(service(), 3)
    await gateway_fixture.gateway.withdraw("web", first.id)
    await gateway_fixture.gateway.mark_dead("web", second.id, "c1@t1")
    started = gateway_fixture.docker("inspect", "--format", "{{.State.StartedAt}}", gateway_fixture.name)
    # Not `docker kill`: the engine restarts a container only if its process dies by itself.
    os.kill(int(gateway_fixture.docker("inspect", "--format", "{{.State.Pid}}", gateway_fixture.name)), signal.SIGKILL)
    await until(lambda: answers_anew(gateway_fixture, started))
    assert {(await gateway_fixture.ask("/web")).headers["x-instance"] for _ in range(4)} == {third.id}
    assert await gateway_fixture.gateway.observe("web") == {
        third.id: EndpointState("admitted", 0, drained=False, healthy=True)
    }
    await gateway_fixture.gateway.admit(first.endpoint())
    await gateway_fixture.gateway.publish(service("other", 1))
    assert {(await gateway_fixture.ask("/web")).headers["x-instance"] for _ in range(8)} == {first.id, third.id}


async def test_gateway_is_adopted_by_a_new_sluice_without_a_reload(gateway_fixture: GatewayFixture) -> None:
    retained, leaving = await gateway_fixture.serve(service(), 2)
    worker = await pid(gateway_fixture)
    asking = asyncio.create_task(gateway_fixture.ask("/web/wait"))
    await until(lambda: busy(gateway_fixture))
    await gateway_fixture.gateway.withdraw("web", leaving.id)
    again = HaproxyRouter(gateway_fixture.directory)
    await again.configure(gateway_fixture.settings)
    await again.restore([service()], [retained.endpoint()])
    endpoint_states = await again.observe("web")
    assert (endpoint_states[retained.id].state, endpoint_states[leaving.id].state) == ("admitted", "draining")
    assert sum(endpoint_state.in_flight for endpoint_state in endpoint_states.values()) == 1
    assert await pid(gateway_fixture) == worker
    for instance in gateway_fixture.instances:
        instance.release.set()
    assert (await asking).status == 200
    await again.close()


async def test_sluice_with_another_rendering_reloads_the_gateway_and_loses_nothing(
    gateway_fixture: GatewayFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    [instance] = await gateway_fixture.serve(service(), 1)
    worker = await pid(gateway_fixture)
    asking = asyncio.create_task(gateway_fixture.ask("/web/wait"))
    await until(lambda: busy(gateway_fixture))
    monkeypatch.setattr(health_checks, "HEALTHCHECK_USER_AGENT", "another-healthcheck")
    upgraded = HaproxyRouter(gateway_fixture.directory)
    await upgraded.configure(gateway_fixture.settings)
    await upgraded.restore([service()], [instance.endpoint()])
    assert "another-healthcheck" in (gateway_fixture.directory / "haproxy.cfg").read_text()
    assert await pid(gateway_fixture) != worker
    assert (await gateway_fixture.ask("/web/")).status == 200
    instance.release.set()
    assert (await asking).status == 200
    await upgraded.close()


async def test_query_of_a_missing_worker_always_gets_the_same_error(gateway_fixture: GatewayFixture) -> None:
    api = RuntimeApi(gateway_fixture.directory / "master.sock")
    reported = {await api.query("show servers conn", "@!99999", timeout=2) for _ in range(50)}
    assert len(reported) == 1 and "Can't find the target" in reported.pop()


async def test_restore_repairs_differences_from_the_files(gateway_fixture: GatewayFixture) -> None:
    first, second = await gateway_fixture.serve(service(), 2)
    before = gateway_fixture.directory / "haproxy.cfg"
    text = before.read_text()
    await gateway_fixture.gateway.withdraw("web", first.id)
    stranger = replace(second.endpoint(), address=first.endpoint().address)
    await gateway_fixture.gateway.admit(stranger)
    await gateway_fixture.gateway.restore([service()], [instance.endpoint() for instance in (first, second)])
    assert {id: endpoint_state.state for id, endpoint_state in (await gateway_fixture.gateway.observe("web")).items()} == {
        first.id: "admitted",
        second.id: "admitted",
    }
    assert {(await gateway_fixture.ask("/web")).headers["x-instance"] for _ in range(8)} == {first.id, second.id}
    assert before.read_text() == text


async def test_failed_reload_restores_the_old_file_and_keeps_serving(
    gateway_fixture: GatewayFixture, monkeypatch: Any
) -> None:
    await gateway_fixture.serve(service(), 1)
    text = (gateway_fixture.directory / "haproxy.cfg").read_text()
    worker = await pid(gateway_fixture)
    right = render._common
    monkeypatch.setattr(render, "_common", lambda service: ["    no-such-word", *right(service)])
    with pytest.raises(RoutingError, match="no-such-word"):
        await gateway_fixture.gateway.publish(service("other", 1))
    monkeypatch.undo()
    assert (gateway_fixture.directory / "haproxy.cfg").read_text() == text
    assert await pid(gateway_fixture) == worker
    assert (await gateway_fixture.ask("/web")).status == 200
    await gateway_fixture.gateway.publish(service("third", 2))
    assert (await gateway_fixture.ask("/web")).status == 200


async def test_taken_internal_port_fails_only_the_service_that_needs_it(gateway_fixture: GatewayFixture) -> None:
    await gateway_fixture.serve(service(), 1)
    with socket.create_server((BRIDGE, INTERNAL + 1)):
        bad, good = await asyncio.gather(
            gateway_fixture.gateway.publish(service("bad", 1)),
            gateway_fixture.gateway.publish(service("good", 2)),
            return_exceptions=True,
        )
        assert isinstance(bad, RoutingError)
        assert "in use" in str(bad)
        assert good is None
    await gateway_fixture.gateway.publish(service("bad", 1))


async def test_services_published_together_share_one_reload(gateway_fixture: GatewayFixture) -> None:
    names = [f"s{n}" for n in range(8)]
    await asyncio.gather(*(gateway_fixture.gateway.publish(service(name, n)) for n, name in enumerate(names)))
    assert gateway_fixture.logs().count("Reloading HAProxy") == 1
    await asyncio.gather(*(gateway_fixture.gateway.publish(service(name, n)) for n, name in enumerate(names)))
    assert gateway_fixture.logs().count("Reloading HAProxy") == 1


async def test_public_port_change_finishes_requests_in_flight_on_the_old_port(gateway_fixture: GatewayFixture) -> None:
    [instance] = await gateway_fixture.serve(service(), 1)
    idle = await Connection.open("127.0.0.1", PUBLIC)
    assert (await idle.send(request("GET", "x", "/web"))).status == 200
    waiting = asyncio.create_task(gateway_fixture.ask("/web/wait"))
    await until(lambda: in_flight(gateway_fixture, instance.id))
    await gateway_fixture.gateway.close()
    again = HaproxyRouter(gateway_fixture.directory)
    with capture_logs() as said:
        await again.configure(replace(gateway_fixture.settings, public_port=PUBLIC + 1))
    assert [(each["event"], each["before"], each["now"]) for each in said] == [("gateway_port_changes", PUBLIC, PUBLIC + 1)]
    assert f"{instance.endpoint().address}:" in (gateway_fixture.directory / "haproxy.cfg").read_text()
    await again.restore([service()], [instance.endpoint()])
    assert (await gateway_fixture.ask("/web", port=PUBLIC + 1)).status == 200
    with pytest.raises(ConnectionError):
        await gateway_fixture.ask("/web")
    assert (await idle.send(request("GET", "x", "/web"))).status == 200
    instance.release.set()
    assert (await waiting).status == 200
    idle.close()
    await again.close()


async def test_public_port_change_to_a_taken_port_changes_nothing(gateway_fixture: GatewayFixture) -> None:
    [instance] = await gateway_fixture.serve(service(), 1)
    text = (gateway_fixture.directory / "haproxy.cfg").read_text()
    again = HaproxyRouter(gateway_fixture.directory)
    elsewhere = replace(gateway_fixture.settings, public_port=PUBLIC + 1)
    with socket.create_server(("127.0.0.1", PUBLIC + 1)), pytest.raises(RoutingError, match="in use on this machine"):
        await again.configure(elsewhere)
    assert (gateway_fixture.directory / "haproxy.cfg").read_text() == text
    assert (await gateway_fixture.ask("/web")).status == 200
    await again.configure(elsewhere)
    await again.restore([service()], [instance.endpoint()])
    assert (await gateway_fixture.ask("/web", port=PUBLIC + 1)).status == 200
    await again.close()


async def test_files_of_an_unresponsive_gateway_are_still_updated(gateway_fixture: GatewayFixture) -> None:
    first, _ = await gateway_fixture.serve(service(), 2)
    gateway_fixture.docker("pause", gateway_fixture.name)
    assert first.id in (gateway_fixture.directory / "haproxy.cfg").read_text()
    lost = asyncio.create_task(gateway_fixture.gateway.mark_dead("web", first.id, "c1@t1"))
    with pytest.raises(RoutingError):
        await lost
    assert f"server {first.id} " not in (gateway_fixture.directory / "haproxy.cfg").read_text()
    gateway_fixture.docker("unpause", gateway_fixture.name)
    await gateway_fixture.gateway.restore([service()], [instance.endpoint() for instance in gateway_fixture.instances])
    assert (await gateway_fixture.gateway.observe("web"))[first.id].state != "admitted"


async def test_invalid_service_or_route_does_not_affect_other_services(gateway_fixture: GatewayFixture) -> None:
    await gateway_fixture.serve(service(), 1)
    with pytest.raises(RoutingError):
        await gateway_fixture.gateway.publish(replace(service("bad", 1, routes=()), name="bad\n    bind *:1"))
    with pytest.raises(RoutingError):
        await gateway_fixture.gateway.publish(service("bad", 1, routes=(Route(path_prefix="/web"),)))
    assert (await gateway_fixture.ask("/web")).status == 200


async def in_flight(gateway_fixture: GatewayFixture, instance: str) -> int:
    endpoint_state = await gateway_fixture.endpoint_state(instance)
    return endpoint_state.in_flight if endpoint_state is not None else 0


async def pid(gateway_fixture: GatewayFixture) -> int:
    found = await gateway_fixture.gateway.status()
    return int(found["pid"]) if found else 0


async def answers_anew(gateway_fixture: GatewayFixture, started: str) -> bool:
    again = gateway_fixture.docker("inspect", "--format", "{{.State.StartedAt}}", gateway_fixture.name) != started
    return again and await gateway_fixture.gateway.status() is not None


async def busy(gateway_fixture: GatewayFixture) -> bool:
    return any(instance.open for instance in gateway_fixture.instances)


async def test_restore_leaves_out_only_a_service_with_a_conflicting_route(gateway_fixture: GatewayFixture) -> None:
    [instance] = await gateway_fixture.serve(service(), 1)
    thief = service("athief", 9, routes=(Route(path_prefix="/web"),))
    assert await gateway_fixture.gateway.restore([service(), thief], [instance.endpoint()]) == {"athief": None}
    assert (await gateway_fixture.ask("/web")).status == 200
    with pytest.raises(RoutingError, match="both use the route"):
        await gateway_fixture.gateway.publish(thief)


async def test_restore_leaves_out_only_a_service_whose_port_is_in_use(gateway_fixture: GatewayFixture) -> None:
    [instance] = await gateway_fixture.serve(service(), 1)
    again = HaproxyRouter(gateway_fixture.directory)
    await again.configure(gateway_fixture.settings)
    with socket.create_server((BRIDGE, INTERNAL + 1)):
        both = [service(), service("other", 1)]
        assert await again.restore(both, [instance.endpoint()]) == {"other": None}
        assert (await gateway_fixture.ask("/web")).status == 200
        with pytest.raises(RoutingError, match="in use on this machine"):
            await again.publish(service("other", 1))
    await again.publish(service("other", 1))
    assert (await gateway_fixture.ask("/other")).status == 503, "it has no instance yet"
    await again.close()


async def test_gateway_whose_port_is_in_use_starts_without_the_service_that_needs_it(
    gateway_fixture: GatewayFixture,
) -> None:
    await gateway_fixture.serve(service(), 1)
    await gateway_fixture.gateway.publish(service("other", 1))
    gateway_fixture.docker("stop", gateway_fixture.name)
    await gateway_fixture.gateway.close()
    again = HaproxyRouter(gateway_fixture.directory)
    await again.configure(gateway_fixture.settings)
    with socket.create_server((BRIDGE, INTERNAL + 1)):
        gateway_fixture.docker("start", gateway_fixture.name)
        await until(lambda: has_failed(gateway_fixture))
        assert again.drop_unbindable() == ["other"]
        await until(again.status)
        assert (await gateway_fixture.ask("/web")).status == 200
    await again.close()


async def has_failed(gateway_fixture: GatewayFixture) -> bool:
    return int(gateway_fixture.docker("inspect", "--format", "{{.RestartCount}}", gateway_fixture.name)) > 0
