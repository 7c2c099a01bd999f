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


async def test_killed_gateway_restarts_without_sluice_with_the_right_instances(fixture: GatewayFixture) -> None:
    first, second, third = await fixture.serve(service(), 3)
    await fixture.gateway.withdraw("web", first.id)
    await fixture.gateway.mark_dead("web", second.id, "c1@t1")
    started = fixture.docker("inspect", "--format", "{{.State.StartedAt}}", fixture.name)
    # Not `docker kill`: the engine restarts a container only if its process dies by itself.
    os.kill(int(fixture.docker("inspect", "--format", "{{.State.Pid}}", fixture.name)), signal.SIGKILL)
    await until(lambda: answers_anew(fixture, started))
    assert {(await fixture.ask("/web")).headers["x-instance"] for _ in range(4)} == {third.id}
    assert await fixture.gateway.observe("web") == {third.id: EndpointState("admitted", 0, drained=False, healthy=True)}
    await fixture.gateway.admit(first.endpoint())
    await fixture.gateway.publish(service("other", 1))
    assert {(await fixture.ask("/web")).headers["x-instance"] for _ in range(8)} == {first.id, third.id}


async def test_gateway_is_adopted_by_a_new_sluice_without_a_reload(fixture: GatewayFixture) -> None:
    retained, leaving = await fixture.serve(service(), 2)
    worker = await pid(fixture)
    asking = asyncio.create_task(fixture.ask("/web/wait"))
    await until(lambda: busy(fixture))
    await fixture.gateway.withdraw("web", leaving.id)
    again = HaproxyRouter(fixture.directory)
    await again.configure(fixture.settings)
    await again.restore([service()], [retained.endpoint()])
    endpoint_states = await again.observe("web")
    assert (endpoint_states[retained.id].state, endpoint_states[leaving.id].state) == ("admitted", "draining")
    assert sum(endpoint_state.in_flight for endpoint_state in endpoint_states.values()) == 1
    assert await pid(fixture) == worker
    for instance in fixture.instances:
        instance.release.set()
    assert (await asking).status == 200
    await again.close()


async def test_sluice_with_another_rendering_reloads_the_gateway_and_loses_nothing(
    fixture: GatewayFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    [instance] = await fixture.serve(service(), 1)
    worker = await pid(fixture)
    asking = asyncio.create_task(fixture.ask("/web/wait"))
    await until(lambda: busy(fixture))
    monkeypatch.setattr(health_checks, "HEALTHCHECK_USER_AGENT", "another-healthcheck")
    upgraded = HaproxyRouter(fixture.directory)
    await upgraded.configure(fixture.settings)
    await upgraded.restore([service()], [instance.endpoint()])
    assert "another-healthcheck" in (fixture.directory / "haproxy.cfg").read_text()
    assert await pid(fixture) != worker
    assert (await fixture.ask("/web/")).status == 200
    instance.release.set()
    assert (await asking).status == 200
    await upgraded.close()


async def test_query_of_a_missing_worker_always_gets_the_same_error(fixture: GatewayFixture) -> None:
    api = RuntimeApi(fixture.directory / "master.sock")
    reported = {await api.query("show servers conn", "@!99999", timeout=2) for _ in range(50)}
    assert len(reported) == 1 and "Can't find the target" in reported.pop()


async def test_restore_repairs_differences_from_the_files(fixture: GatewayFixture) -> None:
    first, second = await fixture.serve(service(), 2)
    before = fixture.directory / "haproxy.cfg"
    text = before.read_text()
    await fixture.gateway.withdraw("web", first.id)
    stranger = replace(second.endpoint(), address=first.endpoint().address)
    await fixture.gateway.admit(stranger)
    await fixture.gateway.restore([service()], [instance.endpoint() for instance in (first, second)])
    assert {id: endpoint_state.state for id, endpoint_state in (await fixture.gateway.observe("web")).items()} == {
        first.id: "admitted",
        second.id: "admitted",
    }
    assert {(await fixture.ask("/web")).headers["x-instance"] for _ in range(8)} == {first.id, second.id}
    assert before.read_text() == text


async def test_failed_reload_restores_the_old_file_and_keeps_serving(fixture: GatewayFixture, monkeypatch: Any) -> None:
    await fixture.serve(service(), 1)
    text = (fixture.directory / "haproxy.cfg").read_text()
    worker = await pid(fixture)
    right = render._common
    monkeypatch.setattr(render, "_common", lambda service: ["    no-such-word", *right(service)])
    with pytest.raises(RoutingError, match="no-such-word"):
        await fixture.gateway.publish(service("other", 1))
    monkeypatch.undo()
    assert (fixture.directory / "haproxy.cfg").read_text() == text
    assert await pid(fixture) == worker
    assert (await fixture.ask("/web")).status == 200
    await fixture.gateway.publish(service("third", 2))
    assert (await fixture.ask("/web")).status == 200


async def test_taken_internal_port_fails_only_the_service_that_needs_it(fixture: GatewayFixture) -> None:
    await fixture.serve(service(), 1)
    with socket.create_server((BRIDGE, INTERNAL + 1)):
        bad, good = await asyncio.gather(
            fixture.gateway.publish(service("bad", 1)), fixture.gateway.publish(service("good", 2)), return_exceptions=True
        )
        assert isinstance(bad, RoutingError)
        assert "in use" in str(bad)
        assert good is None
    await fixture.gateway.publish(service("bad", 1))


async def test_services_published_together_share_one_reload(fixture: GatewayFixture) -> None:
    names = [f"s{n}" for n in range(8)]
    await asyncio.gather(*(fixture.gateway.publish(service(name, n)) for n, name in enumerate(names)))
    assert fixture.logs().count("Reloading HAProxy") == 1
    await asyncio.gather(*(fixture.gateway.publish(service(name, n)) for n, name in enumerate(names)))
    assert fixture.logs().count("Reloading HAProxy") == 1


async def test_public_port_change_finishes_requests_in_flight_on_the_old_port(fixture: GatewayFixture) -> None:
    [instance] = await fixture.serve(service(), 1)
    idle = await Connection.open("127.0.0.1", PUBLIC)
    assert (await idle.send(request("GET", "x", "/web"))).status == 200
    waiting = asyncio.create_task(fixture.ask("/web/wait"))
    await until(lambda: in_flight(fixture, instance.id))
    await fixture.gateway.close()
    again = HaproxyRouter(fixture.directory)
    with capture_logs() as said:
        await again.configure(replace(fixture.settings, public_port=PUBLIC + 1))
    assert [(each["event"], each["before"], each["now"]) for each in said] == [("gateway_port_changes", PUBLIC, PUBLIC + 1)]
    assert f"{instance.endpoint().address}:" in (fixture.directory / "haproxy.cfg").read_text()
    await again.restore([service()], [instance.endpoint()])
    assert (await fixture.ask("/web", port=PUBLIC + 1)).status == 200
    with pytest.raises(ConnectionError):
        await fixture.ask("/web")
    assert (await idle.send(request("GET", "x", "/web"))).status == 200
    instance.release.set()
    assert (await waiting).status == 200
    idle.close()
    await again.close()


async def test_public_port_change_to_a_taken_port_changes_nothing(fixture: GatewayFixture) -> None:
    [instance] = await fixture.serve(service(), 1)
    text = (fixture.directory / "haproxy.cfg").read_text()
    again = HaproxyRouter(fixture.directory)
    elsewhere = replace(fixture.settings, public_port=PUBLIC + 1)
    with socket.create_server(("127.0.0.1", PUBLIC + 1)), pytest.raises(RoutingError, match="in use on this machine"):
        await again.configure(elsewhere)
    assert (fixture.directory / "haproxy.cfg").read_text() == text
    assert (await fixture.ask("/web")).status == 200
    await again.configure(elsewhere)
    await again.restore([service()], [instance.endpoint()])
    assert (await fixture.ask("/web", port=PUBLIC + 1)).status == 200
    await again.close()


async def test_files_of_an_unresponsive_gateway_are_still_updated(fixture: GatewayFixture) -> None:
    first, _ = await fixture.serve(service(), 2)
    fixture.docker("pause", fixture.name)
    assert first.id in (fixture.directory / "haproxy.cfg").read_text()
    lost = asyncio.create_task(fixture.gateway.mark_dead("web", first.id, "c1@t1"))
    with pytest.raises(RoutingError):
        await lost
    assert f"server {first.id} " not in (fixture.directory / "haproxy.cfg").read_text()
    fixture.docker("unpause", fixture.name)
    await fixture.gateway.restore([service()], [instance.endpoint() for instance in fixture.instances])
    assert (await fixture.gateway.observe("web"))[first.id].state != "admitted"


async def test_invalid_service_or_route_does_not_affect_other_services(fixture: GatewayFixture) -> None:
    await fixture.serve(service(), 1)
    with pytest.raises(RoutingError):
        await fixture.gateway.publish(replace(service("bad", 1, routes=()), name="bad\n    bind *:1"))
    with pytest.raises(RoutingError):
        await fixture.gateway.publish(service("bad", 1, routes=(Route(path_prefix="/web"),)))
    assert (await fixture.ask("/web")).status == 200


async def in_flight(fixture: GatewayFixture, instance: str) -> int:
    endpoint_state = await fixture.endpoint_state(instance)
    return endpoint_state.in_flight if endpoint_state is not None else 0


async def pid(fixture: GatewayFixture) -> int:
    found = await fixture.gateway.status()
    return int(found["pid"]) if found else 0


async def answers_anew(fixture: GatewayFixture, started: str) -> bool:
    again = fixture.docker("inspect", "--format", "{{.State.StartedAt}}", fixture.name) != started
    return again and await fixture.gateway.status() is not None


async def busy(fixture: GatewayFixture) -> bool:
    return any(instance.open for instance in fixture.instances)


async def test_restore_leaves_out_only_a_service_with_a_conflicting_route(fixture: GatewayFixture) -> None:
    [instance] = await fixture.serve(service(), 1)
    thief = service("athief", 9, routes=(Route(path_prefix="/web"),))
    assert await fixture.gateway.restore([service(), thief], [instance.endpoint()]) == {"athief": None}
    assert (await fixture.ask("/web")).status == 200
    with pytest.raises(RoutingError, match="both use the route"):
        await fixture.gateway.publish(thief)


async def test_restore_leaves_out_only_a_service_whose_port_is_in_use(fixture: GatewayFixture) -> None:
    [instance] = await fixture.serve(service(), 1)
    again = HaproxyRouter(fixture.directory)
    await again.configure(fixture.settings)
    with socket.create_server((BRIDGE, INTERNAL + 1)):
        both = [service(), service("other", 1)]
        assert await again.restore(both, [instance.endpoint()]) == {"other": None}
        assert (await fixture.ask("/web")).status == 200
        with pytest.raises(RoutingError, match="in use on this machine"):
            await again.publish(service("other", 1))
    await again.publish(service("other", 1))
    assert (await fixture.ask("/other")).status == 503, "it has no instance yet"
    await again.close()


async def test_gateway_whose_port_is_in_use_starts_without_the_service_that_needs_it(fixture: GatewayFixture) -> None:
    await fixture.serve(service(), 1)
    await fixture.gateway.publish(service("other", 1))
    fixture.docker("stop", fixture.name)
    await fixture.gateway.close()
    again = HaproxyRouter(fixture.directory)
    await again.configure(fixture.settings)
    with socket.create_server((BRIDGE, INTERNAL + 1)):
        fixture.docker("start", fixture.name)
        await until(lambda: has_failed(fixture))
        assert again.drop_unbindable() == ["other"]
        await until(again.status)
        assert (await fixture.ask("/web")).status == 200
    await again.close()


async def has_failed(fixture: GatewayFixture) -> bool:
    return int(fixture.docker("inspect", "--format", "{{.RestartCount}}", fixture.name)) > 0
