"""Lists are bounded, paged, newest first, and fast for any number of rows."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import event
from sqlmodel import select

from app.presenters.rollouts import PresenterContext, present_deployments, present_instances, present_services
from services.rollouts.state.operational_state import OperationalState
from services.rollouts.state.runtime_status import CRASH_LOOPING, RuntimeStatus
from services.store.database import Store
from services.store.tables import Deployment, Instance, Revision, Service
from tests.support.app_fixture import AppFixture, build, eventually, living

SERVICES = 200


@pytest.fixture(scope="module")
def app_fixture(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AppFixture]:
    """Store 200 services of three instances after the controller has started, so that it does not know them."""
    with living(build(tmp_path_factory.mktemp("data"))) as made:
        eventually(lambda: made.client.get("/readyz").status_code == 200, "the loop has begun")
        with made.sluice.store.write_session() as session:
            for number in range(SERVICES):
                session.add(
                    Service(name=f"s{number:03}", replicas=3, revision=1, internal_port=30000 + number, created_at=number)
                )
            session.flush()
            for number in range(SERVICES):
                session.add_all(_rows(f"s{number:03}", number))
        yield made


def _rows(name: str, number: int) -> list[Any]:
    spec = {"image": f"{name}:1", "routes": [{"path_prefix": f"/{name}"}]}
    ended: dict[str, Any] = {
        "status": "failed" if number % 2 else "succeeded",
        "image": f"{name}:1",
        "revision": 1,
        "created_at": number,
    }
    return [
        Revision(
            service=name, number=1, spec=spec, effective=spec, image=f"{name}:1", image_id="sha256:1", port=8000, hash="h",
            deployment=number + 1, created_at=number, served=True,
        ),
        Deployment(id=number + 1, service=name, kind="deploy", **ended),
        *(
            Instance(
                id=f"{name}-r1-{slot}", service=name, revision=1, deployment=number + 1, slot=slot, address="10.99.0.9",
                port=8000, hash="h", status="serving" if slot <= 3 - number % 4 else "draining", created_at=number,
            )
            for slot in (1, 2, 3)
        ),
    ]  # fmt: skip


def walk(app_fixture: AppFixture, path: str, key: str, limit: int, **filters: Any) -> list[Any]:
    """Return the value of `key` of every item, page by page."""
    found: list[Any] = []
    cursor = None
    while True:
        parameters = {"limit": str(limit), **filters} | ({"cursor": cursor} if cursor else {})
        page = app_fixture.client.get(path, params=parameters).json()
        assert len(page["items"]) <= limit
        found += [item[key] for item in page["items"]]
        cursor = page["next"]
        if cursor is None:
            return found


@pytest.mark.parametrize(
    ("path", "key", "number"),
    [
        ("/services", "name", SERVICES),
        ("/deployments", "id", SERVICES),
        ("/instances", "id", 3 * SERVICES),
        ("/services/s007/revisions", "number", 1),
        ("/tokens", "id", 1),
    ],
)
@pytest.mark.parametrize("limit", [7, 200])
def test_pages_of_a_list_contain_every_item_once(
    app_fixture: AppFixture, path: str, key: str, number: int, limit: int
) -> None:
    found = walk(app_fixture, path, key, limit)
    assert len(found) == len(set(found)) == number


def test_lists_show_the_newest_items_first(app_fixture: AppFixture) -> None:
    assert app_fixture.client.get("/services").json()["items"][0]["name"] == "s199"
    assert app_fixture.client.get("/deployments").json()["items"][0]["id"] == 200
    assert len(app_fixture.client.get("/services").json()["items"]) == 50


def test_lists_are_filtered_by_status_service_and_kind(app_fixture: AppFixture) -> None:
    assert app_fixture.count("/deployments", status="failed") == 100
    assert app_fixture.count("/deployments", service="s003") == 1
    assert app_fixture.count("/deployments", kind="remove") == 0
    assert app_fixture.count("/deployments", kind="deploy", status="succeeded", service="s003") == 0
    assert app_fixture.count("/instances", service="s003") == 3
    assert app_fixture.count("/instances", service="s003", status="draining") == 3
    assert app_fixture.count("/instances", service="nope") == 0


@pytest.mark.parametrize(
    "parameters", [{"limit": "0"}, {"limit": "201"}, {"limit": "x"}, {"cursor": "zzz"}, {"cursor": "WyJhIl0"}]
)
def test_lists_refuse_an_invalid_limit_or_cursor(app_fixture: AppFixture, parameters: dict[str, str]) -> None:
    for path in ("/services", "/deployments", "/instances", "/events", "/audit", "/tokens", "/services/s003/revisions"):
        answer = app_fixture.client.get(path, params=parameters)
        assert answer.status_code == 422, path
        assert answer.json()["errors"][0]["field"] in parameters


def test_services_list_shows_status_urls_and_deployment(app_fixture: AppFixture) -> None:
    items = {item["name"]: item for item in app_fixture.client.get("/services", params={"limit": "200"}).json()["items"]}
    assert [items[f"s00{n}"]["status"] for n in range(4)] == ["serving", "degraded", "degraded", "down"]
    assert [items[f"s00{n}"]["serving"] for n in range(4)] == [3, 2, 1, 0]
    assert items["s002"]["url"] == "http://127.0.0.1:8080/s002"
    assert items["s002"]["internal_url"] == "http://10.99.0.1:30002"
    assert items["s002"]["deployment"]["id"] == 3


def test_services_list_is_filtered_by_states_on_every_page(app_fixture: AppFixture) -> None:
    states = {
        item["name"]: item["state"] for item in app_fixture.client.get("/services", params={"limit": "200"}).json()["items"]
    }
    assert [states[f"s00{n}"] for n in range(8)] == [
        "serving", "unhealthy", "unhealthy", "down", "serving", "unhealthy", "unhealthy", "down",
    ]  # fmt: skip
    assert app_fixture.count("/services", state="deploying", limit="200") == 0
    assert walk(app_fixture, "/services", "name", 7, state=["down"]) == [f"s{n:03}" for n in range(199, 0, -4)]
    both = walk(app_fixture, "/services", "name", 7, state=["down", "serving"])
    assert both == [name for name in sorted(states, reverse=True) if states[name] in ("down", "serving")]
    assert len(both) == 100


def test_crash_looping_services_are_found_by_their_state(app_fixture: AppFixture) -> None:
    app_fixture.sluice.runtime_status.set_warnings("s000", [CRASH_LOOPING])
    assert walk(app_fixture, "/services", "name", 7, state=["crash_looping"]) == ["s000"]
    assert app_fixture.client.get("/services/s000").json()["state"] == "crash_looping"
    app_fixture.sluice.runtime_status.set_warnings("s000", [])
    assert app_fixture.client.get("/services/s000").json()["state"] == "serving"


def test_services_list_refuses_an_unknown_state(app_fixture: AppFixture) -> None:
    answer = app_fixture.client.get("/services", params={"state": ["down", "degraded"]})
    assert answer.status_code == 422
    (error,) = answer.json()["errors"]
    assert error["field"].startswith("state")
    for state in OperationalState:
        assert f"'{state}'" in error["message"]


def test_since_parameter_is_a_time_a_number_or_a_duration(app_fixture: AppFixture) -> None:
    for since in ("1m", "2026-01-01T00:00:00Z", "2026-01-01T00:00:00.5+02:00", "1700000000.5", "0"):
        assert app_fixture.count("/audit", since=since) == 1, since
    assert app_fixture.count("/audit", since="1ms") == 0
    for since in ("2026-01-01T00:00:00", "yesterday", "-1", "nan", "1e300", "99d", ""):
        assert app_fixture.client.get("/audit", params={"since": since}).status_code == 422, since


@pytest.mark.parametrize("path", ["/services", "/deployments", "/instances"])
def test_long_list_is_answered_quickly(app_fixture: AppFixture, path: str) -> None:
    began = time.perf_counter()
    assert app_fixture.count(path) == 200
    assert time.perf_counter() - began < 2, "on a machine that is not busy a tenth of that"


@pytest.mark.parametrize(
    ("table", "views"), [(Service, present_services), (Deployment, present_deployments), (Instance, present_instances)]
)
def test_long_list_needs_only_a_few_queries(app_fixture: AppFixture, table: type[Any], views: Any) -> None:
    mine = Store(app_fixture.data / "sluice.db")
    asked: list[str] = []
    event.listen(mine._reader, "before_cursor_execute", lambda *arguments: asked.append(arguments[2]))
    with mine.read_session() as session:
        rows = session.exec(select(table).limit(200)).all()
        assert len(views(session, rows, PresenterContext(RuntimeStatus(), "gateway.test:80"))) == 200
    mine.close()
    assert len([text for text in asked if text.startswith("SELECT")]) <= 6, asked
