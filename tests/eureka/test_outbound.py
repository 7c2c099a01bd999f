"""The external servers that a spec may make Sluice call."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

from services.bounded_http import BoundedClient
from services.eureka.external_server import ExternalEureka
from services.outbound import AllowedServer, OutboundPolicy, OutboundRefusedError
from services.routing.port import RoutedService, RoutingError
from services.spec import Eureka
from tests.support.app_fixture import build, living
from tests.support.fakes.clock import FakeClock
from tests.support.raw_http import server

pytestmark = pytest.mark.anyio
OK = b"HTTP/1.1 200 x\r\ncontent-length: 2\r\n\r\n{}"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def policy(*servers: str) -> OutboundPolicy:
    return OutboundPolicy(tuple(map(AllowedServer.parse, servers)))


class Names:
    """A resolver that returns each list of addresses in turn, the last one forever."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *answers: list[str]) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []
        monkeypatch.setattr(anyio, "getaddrinfo", self._resolve)

    async def _resolve(self, host: str, port: int, **kind: Any) -> list[tuple[Any, ...]]:
        self.asked.append(host)
        found = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in found]


def own_address() -> str:
    """Return an address of this host outside loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))
        return str(probe.getsockname()[0])


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "127.8.8.8", "127.1", "2130706433", "0x7f000001", "localhost", "LOCALHOST.", "a.localhost", "[::1]",
     "[::ffff:127.0.0.1]", "[64:ff9b::7f00:1]", "0", "0.0.0.0", "[::]", "169.254.169.254", "[fe80::1]", "[fe80::1%25eth0]",
     "[::ffff:169.254.169.254]", "[fd00:ec2::254]", "100.100.100.200", "224.0.0.1", "[ff02::1]", "255.255.255.255",
     "user:secret@127.0.0.1"],
)  # fmt: skip
def test_addresses_of_this_host_and_metadata_services_are_refused_by_default(host: str) -> None:
    for url in (f"http://{host}/eureka/", f"https://{host}:8761"):
        with pytest.raises(
            OutboundRefusedError, match="the operator can allow servers with SLUICE_EUREKA_SERVERS"
        ) as refused:
            policy().check(url)
        assert "secret" not in str(refused.value)


def test_addresses_of_the_hosts_interfaces_are_refused_by_default() -> None:
    with pytest.raises(OutboundRefusedError, match="an address of this host"):
        policy().check(f"http://{own_address()}:8761/eureka/")


@pytest.mark.parametrize("host", ["10.255.0.5", "192.0.2.1", "[fd00::5]", "[2001:db8::1]", "eureka", "eureka.example.com"])
def test_other_servers_are_allowed_by_default(host: str) -> None:
    policy().check(f"http://user:secret@{host}:8761/eureka/")


@pytest.mark.parametrize(
    ("listed", "allowed", "refused"),
    [
        ("10.0.0.5", ["http://10.0.0.5/", "https://10.0.0.5:1/x"], ["http://10.0.0.50/", "http://eureka/"]),
        ("10.0.0.5:8761", ["http://10.0.0.5:8761"], ["http://10.0.0.5/", "http://10.0.0.5:87610/"]),
        ("eureka:80", ["http://EUREKA/", "http://eureka.:80/"], ["https://eureka/", "http://eureka.evil.example/"]),
        ("http://h:1/eureka", ["http://h:1/eureka", "http://u:p@h:1/eureka/x"],
         ["http://h:1/eureka-x", "http://h:1/", "https://h:1/eureka", "http://h:1/eureka/../x", "http://h:1/eureka/%2e%2e/x",
          "http://h:1/eureka/..%2fx", "http://h:1/eureka/..\\x", "http://evil.example\\@h:2/eureka"]),
        ("127.0.0.1:8761", ["http://127.0.0.1:8761/"], ["http://127.0.0.1:7080/", "http://127.1:8761/"]),
        ("localhost", ["http://localhost:8761/"], ["http://127.0.0.1:8761/"]),
        ("169.254.9.9", ["http://169.254.9.9/"], ["http://169.254.169.254/"]),
        ("[fd00::5]:1", ["http://[fd00:0::5]:1/"], ["http://[fd00::6]:1/"]),
    ],
)  # fmt: skip
def test_configured_list_allows_only_its_servers(listed: str, allowed: list[str], refused: list[str]) -> None:
    for url in allowed:
        policy("other.example", listed).check(url)
    for url in refused:
        with pytest.raises(OutboundRefusedError):
            policy("other.example", listed).check(url)


@pytest.mark.parametrize("text", ["a/b", "ftp://x/", "http://u:p@h/", "h:0", "h:99999", "http://h/?q", "http://", "a b:x"])
def test_invalid_entry_of_the_list_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        AllowedServer.parse(text)


@pytest.mark.parametrize("addresses", [["127.0.0.1"], ["169.254.169.254"], ["0.0.0.0", "::1"]])
async def test_name_that_resolves_to_this_host_is_not_called(monkeypatch: pytest.MonkeyPatch, addresses: list[str]) -> None:
    received: list[bytes] = []
    client = BoundedClient(1024, outbound=policy())
    async with server(lambda: [OK], received) as url:
        Names(monkeypatch, addresses)
        with pytest.raises(OutboundRefusedError, match=f"resolves to {addresses[0]}"):
            await client.ask("GET", url.replace("127.0.0.1", "eureka.example"), timeout=5)
    await client.close()
    assert received == []


async def test_connection_uses_the_address_that_was_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    """The name's second lookup would lead elsewhere; at the first address no server listens."""
    received: list[bytes] = []
    client = BoundedClient(1024, outbound=policy())
    async with server(lambda: [OK], received) as url:
        names = Names(monkeypatch, ["192.0.2.1"], ["127.0.0.1"])
        with pytest.raises((TimeoutError, httpx.ConnectError)):
            await client.ask("GET", url.replace("127.0.0.1", "eureka.example"), timeout=0.5)
    await client.close()
    assert (names.asked, received) == (["eureka.example"], [])


async def test_listed_name_may_resolve_to_this_host_but_not_to_a_metadata_service(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    client = BoundedClient(1024, outbound=policy("eureka.example"))
    async with server(lambda: [OK]) as url:
        Names(monkeypatch, ["169.254.169.254", "127.0.0.1"])
        answer = await client.ask("GET", url.replace("127.0.0.1", "eureka.example"), timeout=5)
        assert answer.body == b"{}"
        Names(monkeypatch, ["169.254.169.254"])
        with pytest.raises(OutboundRefusedError, match="metadata"):
            await client.ask("GET", url.replace("127.0.0.1", "eureka.example"), timeout=5)
    await client.close()


async def test_redirect_is_not_followed() -> None:
    received: list[bytes] = []
    async with server(lambda: [OK], received) as inside:
        moved = f"HTTP/1.1 302 x\r\nlocation: {inside}/\r\ncontent-length: 0\r\n\r\n".encode()
        async with server(lambda: [moved]) as url:
            client = BoundedClient(1024, outbound=policy("127.0.0.1"))
            assert (await client.ask("GET", url, timeout=5)).status == 302
            await client.close()
    assert received == []


async def test_disallowed_server_of_a_stored_spec_is_not_called(monkeypatch: pytest.MonkeyPatch) -> None:
    received: list[bytes] = []
    async with server(lambda: [OK], received) as url:
        for name, address in (("127.0.0.1", "127.0.0.1"), ("eureka.example", "127.0.0.1")):
            Names(monkeypatch, [address])
            theirs = ExternalEureka(FakeClock())
            web = RoutedService("web", 8080, 18001, eureka=Eureka(url=url.replace("127.0.0.1", name)))
            why = f"the Eureka server at {name} is not called: its URL resolves to 127.0.0.1, an address of this host"
            with pytest.raises(RoutingError, match=why):
                await theirs.take_out_of_service(web, "web-r1-1")
            await theirs.close()
    assert received == []


def test_spec_with_a_disallowed_server_is_refused_also_in_a_profile(tmp_path: Path) -> None:
    inside: dict[str, Any] = {"eureka": {"url": "http://127.0.0.1:7080/api/"}}
    with living(build(tmp_path / "data")) as fixture:
        for body in (inside, {"profile": "prod", "profiles": {"prod": inside}}):
            answer = fixture.deploy(**body)
            assert (answer.status_code, answer.json()["code"]) == (422, "invalid_spec")
            assert [error["field"] for error in answer.json()["errors"]] == ["eureka.url"]
            dry = fixture.client.post("/deployments?dry_run=true", json={"service": "web", "image": "web:1", **body})
            assert dry.status_code == 422
        assert not fixture.engine.containers
    with living(build(tmp_path / "listed", eureka_servers="http://127.0.0.1:7080/eureka")) as fixture:
        assert fixture.deploy(**inside).status_code == 422
        allowed = {"eureka": {"url": "http://127.0.0.1:7080/eureka/"}}
        assert fixture.client.post(
            "/deployments?dry_run=true", json={"service": "web", "image": "web:1", **allowed}
        ).is_success
