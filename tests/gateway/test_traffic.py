"""Single requests: which route they take, which headers are added, what is refused or retried."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from services.loadtest.http1_client import request
from services.spec import Healthcheck, Route
from tests.support.gateway_fixture import BRIDGE, INTERNAL, NET, PORT, PUBLIC, GatewayFixture, real_gateway, service, until
from tests.support.http_instance import Instance

pytestmark = [pytest.mark.anyio, pytest.mark.docker]

WEBSOCKET = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec_WebSocket_Version": "13"}
WEBSOCKET["Sec_WebSocket_Key"] = "dGhlIHNhbXBsZSBub25jZQ=="


def seen(answer: Any) -> dict[str, Any]:
    assert answer.status == 200, answer
    return dict(json.loads(answer.body))


async def test_most_specific_route_wins_and_matches_whole_path_segments(gateway_fixture: GatewayFixture) -> None:
    routes = (Route(path_prefix="/a"), Route(host="a.test"), Route(host="a.test", path_prefix="/deep/er"))
    await gateway_fixture.serve(service("web", routes=routes[:1]), 1)
    await gateway_fixture.serve(service("api", 1, routes=routes[1:2]), 1)
    await gateway_fixture.serve(service("deep", 2, routes=routes[2:]), 1)
    for host, path, instance in [
        ("x", "/a", "web-r1-1"),
        ("x", "/a/b?c=/d", "web-r1-1"),
        ("x", "/ab", None),
        ("x", "/", None),
        ("x", "/A", None),
        ("A.test:8080", "/", "api-r1-1"),
        ("a.test.", "/", "api-r1-1"),
        ("a.test.:8080", "/", "api-r1-1"),
        ("a.test", "/a", "api-r1-1"),
        ("a.test", "/deep/er", "deep-r1-1"),
        ("a.test", "/deep/er/still", "deep-r1-1"),
        ("a.test", "/deep/error", "api-r1-1"),
        ("b.a.test", "/", None),
    ]:
        answer = await gateway_fixture.ask(path, Host=host)
        assert (answer.headers.get("x-instance"), answer.status) == (instance, 200 if instance else 404), (host, path)
    assert answer.headers["content-type"] == "text/plain"


async def test_routes_change_without_a_reload(gateway_fixture: GatewayFixture) -> None:
    await gateway_fixture.serve(service("web"), 1)
    before = await gateway_fixture.gateway.status()
    await gateway_fixture.gateway.publish(service("web", routes=(Route(path_prefix="/it's;ok", strip_prefix=False),)))
    assert (await gateway_fixture.ask("/web")).status == 404
    assert seen(await gateway_fixture.ask("/it's;ok/x"))["path"] == "/it's;ok/x"
    await gateway_fixture.gateway.publish(service("web"))
    assert (await gateway_fixture.ask("/it's;ok")).status == 404
    assert seen(await gateway_fixture.ask("/web"))["path"] == "/"
    after = await gateway_fixture.gateway.status()
    assert before is not None
    assert after is not None
    assert before["pid"] == after["pid"]


async def test_route_prefix_is_stripped_and_forwarded_in_a_header(gateway_fixture: GatewayFixture) -> None:
    await gateway_fixture.serve(service("web"), 1)
    for path, inside in [("/web", "/"), ("/web/", "/"), ("/web/x/y?z=1", "/x/y?z=1"), ("/web?z", "/?z")]:
        answer = seen(await gateway_fixture.ask(path))
        assert (answer["path"], answer["headers"]["x-forwarded-prefix"]) == (inside, "/web")


async def test_forwarded_headers_of_an_untrusted_client_are_replaced(gateway_fixture: GatewayFixture) -> None:
    await gateway_fixture.serve(service("web"), 1)
    headers: dict[str, Any] = {
        "X-Forwarded-For": "6.6.6.6",
        "X-Forwarded-Proto": "https",
        "X-Forwarded-Host": "evil",
        "X-Forwarded-Prefix": "/evil",
        "X-Forwarded-Port": "1",
        "Forwarded": "for=6.6.6.6",
        "Host": "good.test",
    }
    got = seen(await gateway_fixture.ask("/web/x", **headers))["headers"]
    assert {name: value for name, value in got.items() if "forwarded" in name} == {
        "x-forwarded-for": "127.0.0.1",
        "x-forwarded-proto": "http",
        "x-forwarded-host": "good.test",
        "x-forwarded-prefix": "/web",
    }
    assert got["host"] == "good.test"


async def test_forwarded_headers_of_a_trusted_proxy_are_kept(image: str) -> None:
    async with real_gateway(trusted_proxies=("127.0.0.0/24",)) as gateway_fixture:
        await gateway_fixture.serve(service("web"), 1)
        headers: dict[str, Any] = {
            "X-Forwarded-For": "6.6.6.6",
            "X-Forwarded-Proto": "https",
            "X-Forwarded-Host": "shop.test",
        }
        got = seen(await gateway_fixture.ask("/web/x", **headers))["headers"]
        assert (got["x-forwarded-proto"], got["x-forwarded-host"]) == ("https", "shop.test")
        assert got["x-forwarded-for"] == "6.6.6.6, 127.0.0.1"


async def test_oversized_body_is_refused_before_it_reaches_an_instance(image: str) -> None:
    async with real_gateway(max_body=1000) as gateway_fixture:
        [instance] = await gateway_fixture.serve(service("web"), 1)
        assert (await gateway_fixture.ask("/web/x", "POST", body="x" * 1000)).status == 200
        assert (await gateway_fixture.ask("/web/x", "POST", body="x" * 1001)).status == 413
        assert len(instance.asked) == 1


async def test_service_answers_at_its_internal_port_and_a_linked_service_by_name(gateway_fixture: GatewayFixture) -> None:
    await gateway_fixture.serve(service("web", routes=()), 1)
    await gateway_fixture.serve(service("api", 1, routes=(), linked=True), 1)
    assert (await gateway_fixture.ask("/x", port=INTERNAL, at=BRIDGE)).headers["x-instance"] == "web-r1-1"
    assert (await gateway_fixture.ask("/x", port=INTERNAL + 1, at=BRIDGE)).headers["x-instance"] == "api-r1-1"
    assert (await gateway_fixture.ask("/x", port=PORT, at=BRIDGE, Host=f"api:{PORT}")).headers["x-instance"] == "api-r1-1"
    assert (await gateway_fixture.ask("/x", port=PORT, at=BRIDGE, Host=f"web:{PORT}")).status == 404
    assert (await gateway_fixture.ask("/x", Host="web")).status == 404


async def test_linked_service_may_use_the_public_port(gateway_fixture: GatewayFixture) -> None:
    await gateway_fixture.serve(service("web"), 1)
    await gateway_fixture.gateway.publish(service("api", 1, routes=(), port=PUBLIC, linked=True))
    api = await gateway_fixture.instance("api-r1-1")
    await gateway_fixture.gateway.admit(api.endpoint())
    name = f"api:{PUBLIC}"
    assert (await gateway_fixture.ask("/web/x", at=BRIDGE, Host=name)).headers["x-instance"] == "api-r1-1"
    assert seen(await gateway_fixture.ask("/web/x", at=BRIDGE, Host=name))["path"] == "/web/x"
    assert (await gateway_fixture.ask("/web/x", Host=name)).headers["x-instance"] == "web-r1-1"
    assert (await gateway_fixture.ask("/web/x", at=BRIDGE, Host="else")).headers["x-instance"] == "web-r1-1"


async def test_get_is_retried_on_another_instance_and_post_is_not(gateway_fixture: GatewayFixture) -> None:
    first, second = await gateway_fixture.serve(service("web"), 2)
    assert (await gateway_fixture.ask("/web/hang-up")).status == 502
    gets = len(first.asked) + len(second.asked)
    assert gets > 1
    assert (await gateway_fixture.ask("/web/hang-up", "POST")).status == 502
    assert len(first.asked) + len(second.asked) == gets + 1


async def test_post_with_idempotency_key_is_retried_if_the_service_allows_it(gateway_fixture: GatewayFixture) -> None:
    first, second = await gateway_fixture.serve(service("web", retry_with_idempotency_key=True), 2)
    assert (await gateway_fixture.ask("/web/hang-up", "POST", body="x" * 3000)).status == 502
    assert len(first.asked) + len(second.asked) == 1
    assert (await gateway_fixture.ask("/web/hang-up", "POST", body="x" * 3000, Idempotency_Key="k")).status == 502
    assert len(first.asked) + len(second.asked) > 2


async def test_post_is_retried_on_another_instance_if_the_connection_is_refused(gateway_fixture: GatewayFixture) -> None:
    first, second = await gateway_fixture.serve(service("web"), 2)
    first.kill()
    for n in range(6):
        assert (await gateway_fixture.ask(f"/web/orders/{n}", "POST")).headers["x-instance"] == second.id


async def test_websocket_survives_withdrawal_and_is_force_closed_and_counted(gateway_fixture: GatewayFixture) -> None:
    [instance] = await gateway_fixture.serve(service("web"), 1)
    reader, writer = await asyncio.open_connection("127.0.0.1", PUBLIC)
    writer.write(request("GET", "x", "/web/ws", **WEBSOCKET))  # type: ignore[arg-type]
    assert b" 101 " in await reader.readuntil(b"\r\n\r\n")
    writer.write(b"hello")
    assert await reader.readexactly(5) == b"hello"
    await gateway_fixture.gateway.withdraw("web", instance.id)
    writer.write(b"still")
    assert await reader.readexactly(5) == b"still"
    endpoint_state = await gateway_fixture.endpoint_state(instance.id)
    assert endpoint_state is not None
    assert (endpoint_state.in_flight, endpoint_state.drained) == (1, False)
    assert await gateway_fixture.gateway.force_close("web", instance.id) == 1
    assert await reader.read() == b""
    writer.close()


async def test_event_stream_is_not_buffered_and_may_be_silent_beyond_request_timeout(
    gateway_fixture: GatewayFixture,
) -> None:
    [instance] = await gateway_fixture.serve(service("web", request_timeout=1), 1)
    reader, writer = await asyncio.open_connection("127.0.0.1", PUBLIC)
    writer.write(b"GET /web/events HTTP/1.1\r\nHost: x\r\n\r\n")
    async with asyncio.timeout(5):
        await reader.readuntil(b"data: first\n\n")
    # A response that takes this long times out; the silent stream does not.
    assert (await gateway_fixture.ask("/web/slow?seconds=5")).status == 504
    instance.release.set()
    async with asyncio.timeout(5):
        await reader.readuntil(b"data: last\n\n")
    writer.close()


async def test_unhealthy_instance_gets_no_requests_until_it_recovers(gateway_fixture: GatewayFixture) -> None:
    first, second = await gateway_fixture.serve(service("web"), 2)
    first.health = 503
    await until(lambda: _healthy(gateway_fixture, first, False))
    for _ in range(4):
        assert (await gateway_fixture.ask("/web")).headers["x-instance"] == second.id
    first.health = 204
    await until(lambda: _healthy(gateway_fixture, first, True))


async def test_revisions_are_probed_by_their_own_health_checks(gateway_fixture: GatewayFixture) -> None:
    """No path of the old revision succeeds: the new revision's check must not apply to it."""
    mild = Healthcheck(interval=0.2, retries=1).model_copy(update={"any_below_500": True})
    await gateway_fixture.gateway.publish(service("web", healthcheck=mild))
    old = await gateway_fixture.instance("web-r1-1", healthcheck=mild)
    await gateway_fixture.gateway.admit(old.endpoint())
    strict = Healthcheck(path="/status/204", interval=0.2, retries=1, headers={"X-Probe": "a b; c"})
    await gateway_fixture.gateway.publish(service("web", healthcheck=strict))
    new = await gateway_fixture.instance("web-r2-1", healthcheck=strict)
    await gateway_fixture.gateway.admit(new.endpoint())
    await until(lambda: _asked(new, "/status/204"))
    asked = next(each for each in new.asked if each.path == "/status/204")
    assert asked.headers["x-probe"] == "a b; c"
    assert asked.headers["host"] == f"{NET}.3:{PORT}"
    await until(lambda: _asked(old, "/"))
    endpoint_states = await gateway_fixture.gateway.observe("web")
    assert all(endpoint_state.healthy for endpoint_state in endpoint_states.values())


async def test_client_that_never_finishes_its_request_gets_408(gateway_fixture: GatewayFixture) -> None:
    await gateway_fixture.serve(service("web"), 1)
    reader, writer = await asyncio.open_connection("127.0.0.1", PUBLIC)
    writer.write(b"GET /web HTTP/1.1\r\nHost: x\r\n")
    async with asyncio.timeout(15):
        assert b" 408 " in await reader.read()
    writer.close()


async def test_only_abnormal_ends_are_logged_by_default(gateway_fixture: GatewayFixture) -> None:
    await gateway_fixture.serve(service("web"), 1)
    await gateway_fixture.ask("/web/fine")
    await gateway_fixture.ask("/web/hang-up")

    async def logged() -> bool:
        return "/web/hang-up" in gateway_fixture.logs()

    await until(logged)
    line = next(line for line in gateway_fixture.logs().splitlines() if "/web/hang-up" in line)
    assert " 502 " in line
    assert " SH-- " in line
    assert "/web/fine" not in gateway_fixture.logs()


async def _healthy(gateway_fixture: GatewayFixture, instance: Instance, healthy: bool) -> bool:
    endpoint_state = await gateway_fixture.endpoint_state(instance.id)
    return endpoint_state is not None and endpoint_state.healthy is healthy


async def _asked(instance: Instance, path: str) -> bool:
    return any(asked.path == path for asked in instance.asked)
