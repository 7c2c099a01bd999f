"""The port's answers, status by status and byte by byte, as clients rely on them."""

from __future__ import annotations

import base64
import gzip
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.sax.saxutils import escape

import httpx
import pytest
from sqlmodel import Session

from app.eureka import operations
from app.eureka.asgi import MAX_BODY, EurekaApp
from app.eureka.auth import EurekaAuth
from services.actor import Actor
from services.auth.access import AuthService
from services.auth.tokens import TokenKey
from services.eureka.registry import Registry
from services.eureka.repository import LeaseRepository
from services.grant import Grant
from services.store.database import Store
from services.store.open import open_store
from services.store.tables import Lease
from tests.support.eureka_payloads import said
from tests.support.fakes.clock import FakeClock

pytestmark = pytest.mark.anyio
JSON = {"accept": "application/json"}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path)


@pytest.fixture
def registry(store: Store) -> Registry:
    return Registry(FakeClock(), LeaseRepository(store))


@pytest.fixture
async def client(registry: Registry) -> AsyncIterator[httpx.AsyncClient]:
    async with calling(registry, EurekaAuth(None)) as made:
        yield made


def calling(registry: Registry, guard: EurekaAuth) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(EurekaApp(registry, guard)), base_url="http://registry")


async def register(client: httpx.AsyncClient, id: str = "a", **fields: Any) -> httpx.Response:
    return await client.post("/eureka/apps/WEB", json=said(id, **fields))


def short(answer: httpx.Response) -> tuple[int, bytes]:
    return answer.status_code, answer.content


async def test_lease_is_registered_renewed_overridden_and_cancelled(client: httpx.AsyncClient) -> None:
    assert short(await register(client)) == (204, b"")
    assert short(await client.put("/eureka/apps/WEB/a?status=UP&lastDirtyTimestamp=1")) == (200, b"")
    assert short(await client.put("/eureka/apps/web/a/status?value=OUT_OF_SERVICE")) == (200, b"")
    one = await client.get("/eureka/apps/WEB/a", headers=JSON)
    assert one.json()["instance"]["overriddenStatus"] == one.json()["instance"]["status"] == "OUT_OF_SERVICE"
    assert short(await client.delete("/eureka/apps/WEB/a/status?value=UP")) == (200, b"")
    assert short(await client.put("/eureka/apps/WEB/a/metadata?weight=5&zone=z1")) == (200, b"")
    assert (await client.get("/eureka/instances/a", headers=JSON)).json()["instance"]["metadata"]["zone"] == "z1"
    assert short(await client.delete("/eureka/apps/WEB/a")) == (200, b"")
    assert short(await client.get("/eureka/apps/WEB/a")) == (404, b"")


@pytest.mark.parametrize(
    "path", ["/eureka/apps", "/eureka/apps/", "//eureka//apps//", "/eureka/v2/apps", "/eureka/apps?regions="]
)
async def test_application_list_is_served_at_every_path_without_a_redirect(client: httpx.AsyncClient, path: str) -> None:
    await register(client)
    answer = await client.get(f"http://registry{path}", headers=JSON)
    assert (answer.status_code, answer.json()["applications"]["apps__hashcode"]) == (200, "UP_1_")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("PUT", "apps/WEB/none?status=UP"), ("DELETE", "apps/WEB/none"), ("PUT", "apps/WEB/none/status?value=UP"),
        ("DELETE", "apps/WEB/none/status"), ("PUT", "apps/WEB/none/metadata?k=v"), ("GET", "apps/NONE"),
        ("GET", "apps/WEB/none"), ("GET", "instances/none"), ("GET", ""), ("POST", "peerreplication/batch/"),
        ("PUT", "asg/x/status?value=UP"),
    ],
)  # fmt: skip
async def test_unknown_paths_answer_404_without_a_body_so_that_clients_register_again(
    client: httpx.AsyncClient, method: str, path: str
) -> None:
    assert short(await client.request(method, f"/eureka/{path}")) == (404, b"")


async def test_answers_are_xml_by_default_and_json_and_gzip_on_request(client: httpx.AsyncClient) -> None:
    await register(client)
    plain = await client.get("/eureka/apps", headers={"accept": "*/*", "accept-encoding": "identity"})
    assert (plain.headers["content-type"], plain.content[:14]) == ("application/xml", b"<applications>")
    async with client.stream("GET", "/eureka/apps", headers={**JSON, "accept-encoding": "gzip, x-gzip, deflate"}) as answer:
        raw = b"".join([part async for part in answer.aiter_raw()])
    assert answer.headers["content-encoding"] == "gzip"
    assert gzip.decompress(raw).startswith(b'{"applications":')
    head = await client.head("/eureka/apps", headers=JSON)
    assert (head.status_code, head.content) == (200, b"")


@pytest.mark.parametrize("kind", ["application/json", "application/xml"])
async def test_application_list_is_encoded_and_compressed_once_per_change(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    made: list[str] = []
    for room, name in ((operations, "json_of"), (operations, "xml_of"), (gzip, "compress")):
        monkeypatch.setattr(room, name, _noting(made, name, getattr(room, name)))
    await register(client)
    for asking in ({}, {"accept-encoding": "identity"}) * 3:
        assert (await client.get("/eureka/apps/", headers={"accept": kind, **asking})).status_code == 200
        assert short(await client.put("/eureka/apps/WEB/a?status=UP")) == (200, b"")
    written = [name for name in made if name != "compress"]
    assert (len(written), made.count("compress")) == (1, 1)
    await register(client, "b")
    assert '"a"' in (await client.get("/eureka/apps/", headers={"accept": "application/json"})).text
    assert len(made) == 4, "and again after a change"


def _noting(made: list[str], name: str, real: Callable[..., bytes]) -> Callable[..., bytes]:
    def noted(*words: Any) -> bytes:
        made.append(name)
        return real(*words)

    return noted


async def test_listed_instance_can_be_registered_unchanged(client: httpx.AsyncClient) -> None:
    await register(client, metadata={"zone": "z1"})
    listed = (await client.get("/eureka/apps", headers=JSON)).json()["applications"]["application"][0]["instance"][0]
    await client.delete("/eureka/apps/WEB/a")
    assert short(await client.post("/eureka/apps/WEB", json={"instance": listed})) == (204, b"")
    again = (await client.get("/eureka/apps/WEB/a", headers=JSON)).json()["instance"]
    assert again.keys() == listed.keys()
    assert (again["ipAddr"], again["metadata"]) == (listed["ipAddr"], listed["metadata"])


async def test_vip_lookup_is_case_sensitive_and_empty_for_an_unknown_vip(client: httpx.AsyncClient) -> None:
    await register(client, vipAddress="web,shop", secureVipAddress="safe")
    for path, found in (("vips/web", 1), ("vips/shop", 1), ("svips/safe", 1), ("vips/WEB", 0), ("svips/web", 0)):
        answer = (await client.get(f"/eureka/{path}", headers=JSON)).json()["applications"]
        assert (len(answer["application"]), answer["versions__delta"] == "-1") == (found, not found)


async def test_instance_id_with_special_characters_is_found_raw_and_encoded(client: httpx.AsyncClient) -> None:
    await register(client, "host:web:8080/a b")
    assert short(await client.put("/eureka/apps/WEB/host%3Aweb%3A8080%2Fa%20b")) == (200, b"")
    await register(client, "host:web:8080")
    assert short(await client.put("/eureka/apps/WEB/host:web:8080")) == (200, b"")


async def test_invalid_override_answers_500_like_the_java_server(client: httpx.AsyncClient) -> None:
    await register(client)
    for query in ("", "?value=NONSENSE", "?value=up"):
        assert (await client.put(f"/eureka/apps/WEB/a/status{query}")).status_code == 500


@pytest.mark.parametrize(
    ("body", "kind", "expected"),
    [
        (b"", "application/json", 400),
        (b'{"instance":[]}', "application/json", 400),
        (b"<instance/>", "application/xml", 400),
        (b"{}", "text/plain", 415),
        (b"{}", None, 415),
        (b"x" * (MAX_BODY + 1), "application/json", 413),
        (b"x" * 10_000_000, "application/xml", 413),
    ],
)
async def test_invalid_registration_is_refused_and_changes_nothing(
    client: httpx.AsyncClient, registry: Registry, body: bytes, kind: str | None, expected: int
) -> None:
    await register(client)
    answer = await client.post("/eureka/apps/WEB", content=body, headers={"content-type": kind} if kind else {})
    assert answer.status_code == expected
    assert len(registry.leases.applications) == 1


@pytest.mark.parametrize("as_xml", [False, True])
@pytest.mark.parametrize(
    "metadata",
    [{"openapi": "x" * 65_536}, {f"key-{n}": "x" * 64 for n in range(1_000)}, {"all": "ü<" * 32_768}],
    ids=["one value", "many values", "escaped"],
)
async def test_64_kb_of_metadata_come_back_whole(client: httpx.AsyncClient, metadata: dict[str, str], as_xml: bool) -> None:
    assert short(await register(client, metadata=metadata)) == (204, b"")
    if as_xml:
        body = (await client.get("/eureka/apps/WEB/a")).content
        assert (
            short(await client.post("/eureka/apps/WEB", content=body, headers={"content-type": "application/xml"}))[0] == 204
        )
    listed = (await client.get("/eureka/apps/WEB/a", headers=JSON)).json()["instance"]
    assert listed["metadata"] == metadata


async def test_unknown_class_of_the_data_center_is_refused_and_never_echoed(
    client: httpx.AsyncClient, registry: Registry
) -> None:
    kind = "org.springframework.context.support.ClassPathXmlApplicationContext"
    answer = await register(client, dataCenterInfo={"@class": kind, "name": "MyOwn"})
    assert short(answer) == (400, b'{"error": "cannot parse request body"}')
    body = "<instance><hostName>h</hostName><app>WEB</app><ipAddr>1.2.3.4</ipAddr>"
    xml = f'{body}<dataCenterInfo class="{kind}"><name>MyOwn</name></dataCenterInfo></instance>'
    answer = await client.post("/eureka/apps/WEB", content=xml, headers={"content-type": "application/xml"})
    assert answer.status_code == 400 and kind not in answer.text
    assert kind not in (await client.get("/eureka/apps")).text
    assert len(registry.leases.applications) == 0


async def test_stored_lease_that_is_not_accepted_any_more_is_not_restored(
    client: httpx.AsyncClient, registry: Registry, store: Store
) -> None:
    for id in ("a", "b"):
        await register(client, id)

    def spoil(session: Session) -> None:
        lease = session.get_one(Lease, ("WEB", "a"))
        lease.registration = {**lease.registration, "dataCenterInfo": {"@class": "evil.Class", "name": "MyOwn"}}
        session.add(lease)

    await store.write(spoil)
    again = Registry(FakeClock(), LeaseRepository(store))
    await again.open()
    assert [entry.registration.id for entry in again.leases.applications.entries()] == ["b"]


@pytest.mark.parametrize("id", ["<b>&\"'", "a/../../b", "%2e%2e", "☃ 雪", "a?b#c", "a" * 1900])
async def test_unusual_instance_id_is_accepted_and_escaped_in_lists(
    client: httpx.AsyncClient, registry: Registry, id: str
) -> None:
    await register(client)
    assert short(await register(client, id)) == (204, b"")
    path = f"/eureka/apps/WEB/{quote(id, safe='')}"
    assert short(await client.put(f"{path}/status?value=DOWN")) == (200, b"")
    listed = (await client.get("/eureka/apps", headers=JSON)).json()["applications"]
    assert {one["instanceId"] for one in listed["application"][0]["instance"]} == {"a", id}
    assert f"<instanceId>{escape(id)}</instanceId>" in (await client.get("/eureka/apps")).text
    assert short(await client.delete(path)) == (200, b"")
    assert [entry.registration.id for entry in registry.leases.applications.entries()] == ["a"]


@pytest.mark.parametrize(
    "query",
    ["&".join(f"k{n}=v" for n in range(201)), "k=%07", f"{'k' * 2001}=v", "=v"],
)
async def test_invalid_metadata_is_refused_and_changes_nothing(
    client: httpx.AsyncClient, registry: Registry, query: str
) -> None:
    await register(client, metadata={"zone": "z1"})
    assert (await client.put(f"/eureka/apps/WEB/a/metadata?{query}")).status_code == 400
    assert [dict(entry.registration.metadata) for entry in registry.leases.applications.entries()] == [{"zone": "z1"}]


async def test_replacement_appears_in_the_delta_and_in_the_direct_delta(client: httpx.AsyncClient) -> None:
    await register(client)
    await client.get("/eureka/apps/", headers=JSON)
    await register(client, "b")
    await client.delete("/eureka/apps/WEB/a")
    for path in ("/eureka/apps/delta", "/direct/eureka/apps/delta"):
        applications = (await client.get(path, headers=JSON)).json()["applications"]
        actions = {one["instanceId"]: one["actionType"] for one in applications["application"][0]["instance"]}
        assert actions == {"a": "DELETED", "b": "ADDED"}
    assert (await client.get("/eureka/apps/delta", headers=JSON)).json()["applications"]["apps__hashcode"] == "UP_1_"


async def test_token_limits_the_applications_that_a_client_may_register(store: Store, registry: Registry) -> None:
    access = AuthService(store, FakeClock(), TokenKey.of(store.path.parent))
    await access.open(lambda _: None)
    by = Actor("system", "test")
    _, bound = await access.create("shop", "deploy", Grant(("shop-*",)), None, by)
    _, web = await access.create("web", "deploy", Grant(("web",)), None, by)
    _, reader = await access.create("reader", "read", None, None, by)

    async def status(method: str, path: str, secret: str | None) -> int:
        headers = {"authorization": "Basic " + base64.b64encode(f"any:{secret}".encode()).decode()} if secret else {}
        async with calling(registry, EurekaAuth(access)) as client:
            body = said() if method == "POST" else None
            return (await client.request(method, f"/eureka/{path}", json=body, headers=headers)).status_code

    assert await status("GET", "apps/", None) == 401
    assert await status("GET", "apps/", "wrong") == 401
    assert await status("GET", "apps/", reader) == 200
    assert await status("POST", "apps/WEB", reader) == 403
    assert await status("POST", "apps/WEB", bound) == 403
    assert await status("POST", "apps/WEB", web) == 204
    assert await status("PUT", "apps/WEB/a/status?value=OUT_OF_SERVICE", bound) == 403
