"""The event stream of a page: the whole page first, then changed parts, and an end when nothing can change any more."""

from __future__ import annotations

import re
import sqlite3
import time
from collections.abc import Iterable, Iterator
from contextlib import closing

import httpx
import pytest

from app.api import sse
from services.actor import SYSTEM
from services.engine.usage_sampler import UsageRate
from services.grant import Grant
from services.rollouts.state.runtime_status import CRASH_LOOPING
from services.store.tables import Deployment, Instance
from tests.support.dashboard_fixture import DashboardFixture, apart
from tests.support.dashboard_server import free_port, serving

pytestmark = pytest.mark.slow


@pytest.fixture
def client(dashboard_fixture: DashboardFixture) -> Iterator[httpx.Client]:
    """Provide a signed-in client of a real server, as only a real server delivers a stream while it is written."""
    dashboard_fixture.service()
    dashboard_fixture.deployment()
    with serving(dashboard_fixture, free_port()) as address, httpx.Client(base_url=address, timeout=10) as client:
        answer = client.post(
            "/ui/sign-in", data={"token": dashboard_fixture.token}, headers={"Sec-Fetch-Site": "same-origin"}
        )
        assert answer.status_code == 303
        yield client


def messages(stream: httpx.Response) -> Iterator[tuple[str, str]]:
    """Yield (event, data) of each message as it arrives."""
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


def test_stream_sends_the_whole_page_first_and_then_only_changed_parts(
    dashboard_fixture: DashboardFixture, client: httpx.Client
) -> None:
    with client.stream("GET", "/ui/deployments/1/stream") as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        reported = messages(stream)
        assert next(reported)[0] == "hello"
        assert parts(next(reported)[1]) == ["deployment", "failures", "timeline", "events"]

        dashboard_fixture.change(Instance, "web-r2-1", status="serving")
        event, data = next(reported)
        assert (event, parts(data)) == ("", ["timeline", "events"])

        dashboard_fixture.sluice.runtime_status.set_in_flight({"web-r1-1": 97})
        dashboard_fixture.wake()
        event, data = next(reported)
        assert parts(data) == ["timeline"]
        assert ">97<" in data


def test_stream_of_the_overview_sends_a_state_that_no_event_reports(
    dashboard_fixture: DashboardFixture, client: httpx.Client
) -> None:
    with client.stream("GET", "/ui/stream") as stream:
        reported = messages(stream)
        assert next(reported)[0] == "hello"
        assert 'data-state="deploying"' in next(reported)[1]
        dashboard_fixture.sluice.runtime_status.set_warnings("web", [CRASH_LOOPING])
        dashboard_fixture.wake()
        data = next(reported)[1]
        assert 'data-state="crash_looping"' in data
        assert "<strong>1</strong> crash looping</a>" in data


def test_stream_batches_many_notifications_into_few_messages(
    dashboard_fixture: DashboardFixture, client: httpx.Client
) -> None:
    with client.stream("GET", "/ui/deployments/1/stream") as stream:
        reported = messages(stream)
        next(reported), next(reported)
        began = time.monotonic()
        for count in range(200):
            dashboard_fixture.change(Deployment, 1, message=f"step {count}")
        counted = 0
        for _, data in reported:
            counted += 1
            if "step 199" in data:
                break
        assert counted <= (time.monotonic() - began) / 0.1 + 2


def test_quiet_stream_sends_heartbeats(client: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "HEARTBEAT_SECONDS", 0.05)
    with client.stream("GET", "/ui/deployments/1/stream") as stream:
        reported, events = messages(stream), list[str]()
        while "" not in events or events.count("beat") < 2:
            events.append(next(reported)[0])
        assert (events[0], events.count("")) == ("hello", 1)


def test_streams_end_when_sluice_stops(dashboard_fixture: DashboardFixture) -> None:
    dashboard_fixture.service()
    with serving(dashboard_fixture, free_port()) as address, httpx.Client(base_url=address, timeout=10) as client:
        client.post("/ui/sign-in", data={"token": dashboard_fixture.token}, headers={"Sec-Fetch-Site": "same-origin"})
        stream = client.send(client.build_request("GET", "/ui/stream"), stream=True)
        reported = messages(stream)
        next(reported), next(reported)
        assert dashboard_fixture.sluice.metrics.streams.collect()  # a gauge of open streams
        assert _open(dashboard_fixture) == 1
        began = time.monotonic()
        assert dashboard_fixture.loop is not None
        dashboard_fixture.loop.call_soon_threadsafe(dashboard_fixture.sluice.stopping.set)
        assert list(reported) == []
        assert time.monotonic() - began < 2
    assert _open(dashboard_fixture) == 0


def test_sign_out_ends_the_streams_of_the_session(dashboard_fixture: DashboardFixture, client: httpx.Client) -> None:
    with client.stream("GET", "/ui/stream") as stream:
        reported = messages(stream)
        next(reported), next(reported)
        client.post("/ui/sign-out", headers={"Sec-Fetch-Site": "same-origin"})
        assert [event for event, _ in reported] == ["signed-out"]


def test_stream_holds_no_transaction_open(dashboard_fixture: DashboardFixture, client: httpx.Client) -> None:
    with client.stream("GET", "/ui/stream") as one, client.stream("GET", "/ui/services/web/stream") as two:
        for stream in (one, two):
            reported = messages(stream)
            next(reported), next(reported)
        dashboard_fixture.change(Deployment, 1, message="written while they are open")
        with closing(sqlite3.connect(dashboard_fixture.sluice.store.path, timeout=5)) as database:
            busy, *_ = database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        assert busy == 0, "a reader is still active"


@pytest.mark.parametrize("path", ["/ui/stream", "/ui/services/web/stream", "/ui/deployments/1/stream"])
def test_stream_requires_a_session(client: httpx.Client, path: str) -> None:
    client.cookies.clear()
    assert client.get(path).status_code == 401


def test_stream_of_an_unknown_deployment_sends_gone_and_ends(client: httpx.Client) -> None:
    with client.stream("GET", "/ui/deployments/99/stream") as stream:
        assert [event for event, _ in messages(stream)] == ["hello", "gone"]


def _open(dashboard_fixture: DashboardFixture) -> float:
    return next(iter(dashboard_fixture.sluice.metrics.streams.collect())).samples[0].value


def test_stream_of_a_service_shows_the_usage_of_its_instances(
    dashboard_fixture: DashboardFixture, client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def loads(instances: Iterable[str]) -> dict[str, UsageRate]:
        return {id: UsageRate(0.25, 64 * 1024**2, None) for id in instances}

    monkeypatch.setattr(dashboard_fixture.sluice.usage_sampler, "of", loads)
    assert "64 MiB" not in client.get("/ui/services/web").text, "a page without a stream must not query the engine"
    with client.stream("GET", "/ui/services/web/stream") as stream:
        reported = messages(stream)
        next(reported)
        _, data = next(reported)
        assert data.count("64 MiB") == data.count(">25 %<") == 6


@pytest.mark.parametrize("path", ["/ui/services/web/stream", "/ui/deployments/1/stream"])
def test_stream_of_a_bound_token_never_offers_actions_on_other_services(
    dashboard_fixture: DashboardFixture, client: httpx.Client, path: str
) -> None:
    """A bound token reads everything and changes its own services (docs/api.md), though both sessions share fragments."""
    _, token = apart(dashboard_fixture.sluice.auth.create("pay", "deploy", Grant(("pay-*",)), None, SYSTEM))
    bound = httpx.Client(base_url=client.base_url, headers={"Authorization": f"Bearer {token}"}, timeout=10)
    with bound, client.stream("GET", path) as admins, bound.stream("GET", path) as theirs:
        for stream, offered in ((messages(admins), True), (messages(theirs), False)):
            next(stream)
            first = next(stream)[1]
            dashboard_fixture.change(
                Deployment, 1, message="progressing" if offered else "progressing again"
            )  # differs from the message before
            for data in (first, next(stream)[1]):
                assert bool(re.search(r'/(deploy|abort)"', data)) is offered, data


def test_stream_of_a_service_never_carries_parts_of_another_service(
    dashboard_fixture: DashboardFixture, client: httpx.Client
) -> None:
    dashboard_fixture.service("other")
    with client.stream("GET", "/ui/stream") as overview, client.stream("GET", "/ui/services/web/stream") as webs:
        reported, mine = messages(overview), messages(webs)
        for stream in (reported, mine):
            next(stream), next(stream)
        other = dashboard_fixture.deployment("other")
        assert "other" in next(reported)[1]
        dashboard_fixture.change(Deployment, other, message="progressing")
        dashboard_fixture.change(Deployment, 1, message="what web says")
        data = next(mine)[1]
        assert "what web says" in data
        assert "other" not in data
