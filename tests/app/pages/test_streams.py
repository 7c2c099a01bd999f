"""A page's stream: the whole page first, then what changes, and an end when there is nothing to say any more."""

from __future__ import annotations

import re
import sqlite3
import time
from collections.abc import Iterable, Iterator
from contextlib import closing

import httpx
import pytest

from app.pages import live_page
from services.caller import SYSTEM
from services.engine.usage_sampler import UsageRate
from services.grant import Grant
from services.store.tables import Deployment, Instance
from tests.support.dashboard_fixture import DashboardFixture, apart
from tests.support.dashboard_server import free_port, serving

pytestmark = pytest.mark.slow


@pytest.fixture
def client(fixture: DashboardFixture) -> Iterator[httpx.Client]:
    """A signed-in client of a real server: only one delivers a stream as it comes."""
    fixture.service()
    fixture.deployment()
    with serving(fixture, free_port()) as address, httpx.Client(base_url=address, timeout=10) as client:
        answer = client.post("/ui/sign-in", data={"token": fixture.token}, headers={"Sec-Fetch-Site": "same-origin"})
        assert answer.status_code == 303
        yield client


def messages(stream: httpx.Response) -> Iterator[tuple[str, str]]:
    """(event, data) as they come."""
    event, data = "", list[str]()
    for line in stream.iter_lines():
        if line.startswith("event:"):
            event = line[6:].strip()
        elif line.startswith("data:"):
            data.append(line[5:].removeprefix(" "))
        elif not line and (event or data):
            yield event, "\n".join(data)
            event, data = "", []


def parts(data: str) -> list[str]:
    return re.findall(r'hx-target="#part-(\w+)"', data)


def test_first_the_whole_page_then_only_what_changed(fixture: DashboardFixture, client: httpx.Client) -> None:
    with client.stream("GET", "/ui/deployments/1/stream") as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        reported = messages(stream)
        assert next(reported)[0] == "hello"
        assert parts(next(reported)[1]) == ["deployment", "failures", "timeline", "events"]

        fixture.change(Instance, "web-r2-1", status="serving")
        event, data = next(reported)
        assert (event, parts(data)) == ("", ["timeline", "events"])

        fixture.sluice.runtime_status.in_flight["web-r1-1"] = 97
        fixture.wake()
        event, data = next(reported)
        assert parts(data) == ["timeline"]
        assert ">97<" in data


def test_many_wake_ups_make_few_messages(fixture: DashboardFixture, client: httpx.Client) -> None:
    with client.stream("GET", "/ui/deployments/1/stream") as stream:
        reported = messages(stream)
        next(reported), next(reported)
        began = time.monotonic()
        for count in range(200):
            fixture.change(Deployment, 1, message=f"step {count}")
        counted = 0
        for _, data in reported:
            counted += 1
            if "step 199" in data:
                break
        assert counted <= (time.monotonic() - began) / 0.1 + 2


def test_a_quiet_stream_says_that_it_stands(client: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_page, "HEARTBEAT_INTERVAL", 0.05)
    with client.stream("GET", "/ui/deployments/1/stream") as stream:
        reported = messages(stream)
        assert [next(reported)[0] for _ in range(4)] == ["hello", "", "beat", "beat"]


def test_streams_end_when_sluice_stops(fixture: DashboardFixture) -> None:
    fixture.service()
    with serving(fixture, free_port()) as address, httpx.Client(base_url=address, timeout=10) as client:
        client.post("/ui/sign-in", data={"token": fixture.token}, headers={"Sec-Fetch-Site": "same-origin"})
        stream = client.send(client.build_request("GET", "/ui/stream"), stream=True)
        reported = messages(stream)
        next(reported), next(reported)
        assert fixture.sluice.metrics.streams.collect()  # a gauge of open streams
        assert _open(fixture) == 1
        began = time.monotonic()
        assert fixture.loop is not None
        fixture.loop.call_soon_threadsafe(fixture.sluice.stopping.set)
        assert list(reported) == []
        assert time.monotonic() - began < 2
    assert _open(fixture) == 0


def test_signing_out_ends_the_streams_of_that_session(fixture: DashboardFixture, client: httpx.Client) -> None:
    with client.stream("GET", "/ui/stream") as stream:
        reported = messages(stream)
        next(reported), next(reported)
        client.post("/ui/sign-out", headers={"Sec-Fetch-Site": "same-origin"})
        assert [event for event, _ in reported] == ["signed-out"]


def test_a_stream_holds_no_transaction_open(fixture: DashboardFixture, client: httpx.Client) -> None:
    with client.stream("GET", "/ui/stream") as one, client.stream("GET", "/ui/services/web/stream") as two:
        for stream in (one, two):
            reported = messages(stream)
            next(reported), next(reported)
        fixture.change(Deployment, 1, message="written while they are open")
        with closing(sqlite3.connect(fixture.sluice.store.path, timeout=5)) as database:
            busy, *_ = database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        assert busy == 0, "somebody still reads"


@pytest.mark.parametrize("path", ["/ui/stream", "/ui/services/web/stream", "/ui/deployments/1/stream"])
def test_a_stranger_has_no_stream(client: httpx.Client, path: str) -> None:
    client.cookies.clear()
    assert client.get(path).status_code == 401


def test_a_stream_of_what_is_not_there_says_so_and_ends(client: httpx.Client) -> None:
    with client.stream("GET", "/ui/deployments/99/stream") as stream:
        assert [event for event, _ in messages(stream)] == ["hello", "gone"]


def _open(fixture: DashboardFixture) -> float:
    return next(iter(fixture.sluice.metrics.streams.collect())).samples[0].value


def test_an_open_page_of_a_service_shows_what_its_instances_use(
    fixture: DashboardFixture, client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def loads(instances: Iterable[str]) -> dict[str, UsageRate]:
        return {id: UsageRate(0.25, 64 * 1024**2, None) for id in instances}

    monkeypatch.setattr(fixture.sluice.usage_sampler, "of", loads)
    assert "64 MiB" not in client.get("/ui/services/web").text, "a page that nobody keeps open asks the engine nothing"
    with client.stream("GET", "/ui/services/web/stream") as stream:
        reported = messages(stream)
        next(reported)
        _, data = next(reported)
        assert data.count("64 MiB") == data.count(">25 %<") == 6


@pytest.mark.parametrize("path", ["/ui/services/web/stream", "/ui/deployments/1/stream"])
def test_a_bound_tokens_stream_never_carries_what_only_another_may_do(
    fixture: DashboardFixture, client: httpx.Client, path: str
) -> None:
    """It reads all and changes its own alone (docs/api.md), though both have the same page open and share what is drawn."""
    _, token = apart(fixture.sluice.auth.create("pay", "deploy", Grant(("pay-*",)), None, SYSTEM))
    bound = httpx.Client(base_url=client.base_url, headers={"Authorization": f"Bearer {token}"}, timeout=10)
    with bound, client.stream("GET", path) as admins, bound.stream("GET", path) as theirs:
        for stream, offered in ((messages(admins), True), (messages(theirs), False)):
            next(stream)
            first = next(stream)[1]
            fixture.change(Deployment, 1, message="goes on" if offered else "goes on and on")  # never back to what was drawn
            for data in (first, next(stream)[1]):
                assert bool(re.search(r'/(deploy|abort)"', data)) is offered, data


def test_a_services_stream_never_carries_anothers_fragment(fixture: DashboardFixture, client: httpx.Client) -> None:
    fixture.service("other")
    with client.stream("GET", "/ui/stream") as overview, client.stream("GET", "/ui/services/web/stream") as webs:
        reported, mine = messages(overview), messages(webs)
        for stream in (reported, mine):
            next(stream), next(stream)
        other = fixture.deployment("other")
        assert "other" in next(reported)[1]
        fixture.change(Deployment, other, message="goes on")
        fixture.change(Deployment, 1, message="what web says")
        data = next(mine)[1]
        assert "what web says" in data
        assert "other" not in data
