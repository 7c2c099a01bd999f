"""The server process streams, stops without waiting for streams, and refuses to start with a clear sentence."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from app.api import sse
from app.http import h11_protocol
from app.server import Server, server_of
from services.rollouts.state.recognition import UnknownContainer
from tests.support.app_fixture import NEVER, AppFixture, build, eventually

pytestmark = pytest.mark.slow

PATIENCE = 20.0


class Served:
    """A Sluice behind a real port."""

    def __init__(self, app_fixture: AppFixture) -> None:
        self.fixture = app_fixture
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listening.getsockname()[1]}"
        self.server: Server = server_of(app_fixture.app, app_fixture.settings)
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [self.listening]})

    @property
    def client(self) -> httpx2.Client:
        return httpx2.Client(
            base_url=self.url, headers={"Authorization": f"Bearer {self.fixture.token}"}, timeout=PATIENCE, trust_env=False
        )

    def get(self, path: str) -> httpx2.Response:
        with self.client as client:
            return client.get(path)

    def stop(self) -> float:
        """Stop the server and return the seconds that this took."""
        began = time.monotonic()
        self.server.should_exit = True
        self.thread.join(PATIENCE)
        assert not self.thread.is_alive(), "it did not stop"
        return time.monotonic() - began


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with serving(build(tmp_path / "data")) as made:
        yield made


@contextmanager
def serving(app_fixture: AppFixture) -> Iterator[Served]:
    served = Served(app_fixture)
    served.thread.start()
    eventually(lambda: served.server.started, "the server has started")
    try:
        yield served
    finally:
        served.stop()
        served.listening.close()
        app_fixture.engine.close()


class Reading:
    """Event stream that is read in the background; `events` holds (type, id, data)."""

    def __init__(self, served: Served, path: str, **headers: str) -> None:
        self.events: list[tuple[str, str, Any]] = []
        self.lines: list[str] = []
        self.status = 0
        self._served, self._path, self._headers = served, path, headers
        self.thread = threading.Thread(target=self._read)
        self.thread.start()
        eventually(lambda: self.status, f"{path} answers")

    @property
    def types(self) -> list[str]:
        return [event[0] for event in self.events]

    def end(self) -> list[str]:
        self.thread.join(PATIENCE)
        assert not self.thread.is_alive(), "the stream did not end"
        return self.types

    def _read(self) -> None:
        headers = {"Accept": "text/event-stream", **self._headers}
        with self._served.client as client, client.stream("GET", self._path, headers=headers) as answer:
            self.status = answer.status_code
            event: dict[str, str] = {}
            for line in answer.iter_lines():
                self.lines.append(line)
                name, _, value = line.partition(": ")
                if line:
                    event[name] = value
                elif "event" in event:
                    self.events.append((event["event"], event.get("id", ""), json.loads(event["data"])))
                    event = {}


def deploy(served: Served, image: str = "web:1", **fields: Any) -> int:
    served.fixture.image(image)
    body = {"service": "web", "image": image, "healthcheck": {"disable": True, "test": None}, **fields}
    with served.client as client:
        id: int = client.post("/deployments", json=body).json()["id"]
    return id


def test_event_stream_of_a_deployment_goes_from_its_beginning_to_its_end(served: Served) -> None:
    reading = Reading(served, f"/deployments/{deploy(served)}/events")
    types = reading.end()
    assert types[0] == "created"
    assert types[-2:] == ["succeeded", "end"]
    assert "instance_serving" in types
    assert reading.lines[1] == "retry: 1000"
    ids = [int(id) for _, id, _ in reading.events if id]
    assert ids == sorted(ids)
    assert reading.events[0][2]["actor"] == {"kind": "token", "name": "admin"}
    assert reading.events[0][2]["deployment"] == 1


def test_event_stream_resumes_after_the_last_event_id_and_ends_with_204(served: Served) -> None:
    id = deploy(served)
    whole = Reading(served, f"/deployments/{id}/events")
    whole.end()
    third = whole.events[2][1]
    rest = Reading(served, f"/deployments/{id}/events", **{"Last-Event-ID": third})
    rest.end()
    assert rest.events == whole.events[3:]
    last = Reading(served, f"/deployments/{id}/events", **{"Last-Event-ID": whole.events[-2][1]})
    last.end()
    assert (last.status, last.events) == (204, [])
    bad = Reading(served, f"/deployments/{id}/events", **{"Last-Event-ID": "x"})
    bad.end()
    assert bad.status == 422


def test_event_stream_of_everything_starts_now_or_after_the_last_event_id(served: Served) -> None:
    deploy(served)
    eventually(lambda: "succeeded" in served.get("/deployments/1").text, "the first one has ended")
    now = Reading(served, "/events")
    everything = Reading(served, "/events", **{"Last-Event-ID": "0"})
    far = Reading(served, "/events", **{"Last-Event-ID": "999999"})
    deploy(served, "web:2")
    eventually(lambda: now.types.count("succeeded") == 1, "the second one has ended")
    eventually(lambda: everything.types.count("succeeded") == 2, "both have ended")
    eventually(lambda: far.types.count("succeeded") == 1, "an id from before a restored backup misses nothing")
    assert now.types[0] == "created"
    assert everything.types[0] == "token_created"
    served.stop()
    assert [now.end()[-1], everything.end()[-1], far.end()[-1]] == ["bye"] * 3


def test_events_are_a_list_unless_a_stream_is_accepted(served: Served) -> None:
    id = deploy(served)
    with served.client as client:
        client.get(f"/deployments/{id}?wait=20")
        first = client.get(f"/deployments/{id}/events?limit=3").json()
        assert first["items"][0]["type"] == "succeeded", "newest first"
        rest = client.get(f"/deployments/{id}/events", params={"limit": 200, "cursor": first["next"]}).json()
        assert rest["items"][-1]["type"] == "created"
        assert rest["next"] is None
        ids = [event["id"] for event in first["items"] + rest["items"]]
        assert ids == sorted(ids, reverse=True)
        assert len(set(ids)) == len(ids)


def test_quiet_event_stream_sends_heartbeats_and_ends_after_its_maximum_duration(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sse, "HEARTBEAT_SECONDS", 0.05)
    monkeypatch.setattr(sse, "MAX_STREAM_SECONDS", 0.5)
    reading = Reading(served, "/events")
    assert reading.end() == ["bye"]
    assert reading.lines.count(": alive") >= 3
    assert "sluice_open_streams 0.0" in served.get("/metrics").text


def test_revoked_token_ends_its_streams(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "HEARTBEAT_SECONDS", 0.05)
    deploy(served, healthcheck=NEVER)
    with served.client as client:
        token = client.post("/tokens", json={"name": "reader", "scope": "read"}).json()
        bearer = {"Authorization": f"Bearer {token['token']}"}
        paths = ("/events", "/deployments/1/events", "/services/web/logs")
        readings = [Reading(served, path, **bearer) for path in paths]
        assert client.delete(f"/tokens/{token['id']}").status_code == 204
    assert [reading.end()[-1] for reading in readings] == ["bye"] * 3


def test_disconnect_of_a_client_ends_its_streams(served: Served) -> None:
    deploy(served)
    with served.client as client:
        client.get("/deployments/1?wait=20")
        for path in ("/events", "/services/web/logs", "/ui/stream"):
            with client.stream("GET", path, headers={"Accept": "text/event-stream"}) as stream:
                lines = stream.iter_lines()
                next(lines)
                assert "sluice_open_streams 1.0" in served.get("/metrics").text, path
            eventually(lambda: "sluice_open_streams 0.0" in served.get("/metrics").text, "the stream has ended")
    eventually(lambda: not served.fixture.sluice.event_feed._subscriptions, "nothing is subscribed to events")
    eventually(lambda: not served.fixture.sluice.live_views._views, "no page is rendered any more")


def test_logs_of_an_instance_are_read_and_followed(served: Served) -> None:
    id = deploy(served)
    with served.client as client:
        name = client.get(f"/deployments/{id}?wait=20").json()["instances"][0]["id"]
        served.fixture.engine.write(name, "one\ntwo\nthree\n")
        assert client.get(f"/instances/{name}/logs?tail=2").text.split() == ["two", "three"]
        reading = Reading(served, f"/instances/{name}/logs?follow=true&tail=1", Accept="text/plain")
        eventually(lambda: reading.lines == ["three"], "the tail came")
        served.fixture.engine.write(name, "four\n")
        eventually(lambda: reading.lines == ["three", "four"], "the next line came")
        assert client.get(f"/instances/{name}/logs?tail=-1").status_code == 422
        assert client.get(f"/instances/{name}/logs?since=yesterday").status_code == 422
    assert served.stop() < 2
    reading.end()


def test_log_stream_of_a_service_resumes_after_the_last_event_id(served: Served) -> None:
    deploy(served)
    with served.client as client:
        client.get("/deployments/1?wait=20")
        served.fixture.engine.write("web-r1-1", "one\ntwo")
        reading = Reading(served, "/services/web/logs")
        eventually(lambda: len(reading.events) == 2, "both lines came")
        assert [(name, data["instance"], data["text"]) for name, _, data in reading.events] == [
            ("line", "web-r1-1", "one"),
            ("line", "web-r1-1", "two"),
        ]
        served.fixture.engine.write("web-r1-1", "three")
        again = Reading(served, "/services/web/logs", **{"Last-Event-ID": reading.events[1][1]})
        eventually(lambda: again.events and again.events[-1][2]["text"] == "three", "the missing one came")
        wrong = client.get("/services/web/logs", headers={"Accept": "text/event-stream", "Last-Event-ID": "17"})
        assert (wrong.status_code, wrong.json()["errors"][0]["field"]) == (422, "Last-Event-ID")
    assert served.stop() < 2
    reading.end()
    again.end()


def test_log_of_a_removed_instance_is_410(served: Served) -> None:
    id = deploy(served)
    with served.client as client:
        name = client.get(f"/deployments/{id}?wait=20").json()["instances"][0]["id"]
        client.delete("/services/web?wait=20")
        answer = client.get(f"/instances/{name}/logs")
        assert (answer.status_code, answer.json()["code"]) == (410, "logs_gone")


def test_streams_and_held_answers_do_not_delay_the_stop(served: Served) -> None:
    id = deploy(served, healthcheck=NEVER)
    readings = [Reading(served, path) for path in ("/events", f"/deployments/{id}/events")]
    held: list[httpx2.Response] = []

    def hold() -> None:
        with served.client as client:
            held.append(client.get("/healthz"))
            held.append(client.get(f"/deployments/{id}?wait=600"))

    thread = threading.Thread(target=hold)
    thread.start()
    eventually(lambda: len(held) == 1, "the client has come")
    eventually(lambda: "progress" in readings[1].types, "it is under way")
    assert served.stop() < 2
    assert [reading.end()[-1] for reading in readings] == ["bye", "bye"]
    thread.join(PATIENCE)
    assert (held[1].status_code, held[1].headers["retry-after"]) == (503, "1")
    assert held[1].json()["code"] == "stopping"


def test_readyz_names_the_part_that_does_not_answer(served: Served) -> None:
    app_fixture = served.fixture
    with httpx2.Client(base_url=served.url, trust_env=False) as client:
        eventually(lambda: client.get("/readyz").status_code == 200, "it is ready")
        assert client.get("/healthz").json() == {"status": "alive"}
        app_fixture.gateway.answering = False
        answer = client.get("/readyz")
        assert (answer.status_code, answer.json()["code"]) == (503, "not_ready")
        assert "gateway" in answer.json()["detail"]
        assert answer.json()["engine"]["ok"] is True
        app_fixture.gateway.answering = True
        with app_fixture.engine.unreachable():
            assert "engine" in client.get("/readyz").json()["detail"]
        app_fixture.sluice.runtime_status.set_unknown_containers([UnknownContainer("web-r9-1", "copy")])
        eventually(lambda: client.get("/readyz").status_code == 200, "it is ready again")
        ready = client.get("/readyz").json()
        assert ready["store_behind_engine"] == ["web-r9-1"]
        assert ready["unknown_containers"] == [{"name": "copy", "instance": "web-r9-1", "remove": "docker rm --force copy"}]


@pytest.mark.parametrize("chunked", [False, True], ids=["announced", "in chunks"])
def test_request_body_that_is_too_large_is_a_413_problem(served: Served, chunked: bool) -> None:
    whole = b"x" * 5_000_000
    with served.client as client:
        answer = client.post("/deployments", content=iter([whole]) if chunked else whole)
    assert (answer.status_code, answer.headers["content-type"]) == (413, "application/problem+json")
    assert answer.json()["code"] == "too_large"


def test_metrics_count_by_route_status_and_state(served: Served) -> None:
    deploy(served, replicas=2)
    with served.client as client:
        client.get("/deployments/1?wait=20")
        client.get("/services/nope")
        text = client.get("/metrics").text
    for line in (
        'sluice_api_requests_total{code="202",method="POST",route="/deployments"} 1.0',
        'sluice_api_requests_total{code="404",method="GET",route="/services/{name}"} 1.0',
        'sluice_deployments_total{service="web",status="succeeded"} 1.0',
        'sluice_deployments_total{service="web",status="failed"} 0.0',
        'sluice_instances{service="web",status="serving"} 2.0',
        'sluice_requests_in_flight{service="web"} 0.0',
        "sluice_services 1.0",
        'sluice_part_ready{part="engine"} 1.0',
    ):
        assert line in text
    assert "sluice_reconciles_total" in text


def run(data: Path, **environment: str) -> subprocess.Popen[str]:
    """Start a process of its own whose engine is unreachable."""
    settings = {
        "SLUICE_DATA": str(data),
        "SLUICE_NAME": "h3-test",
        "SLUICE_DOCKER_HOST": f"unix://{data}/nowhere.sock",
        "PATH": os.environ["PATH"],
        **environment,
    }
    code = (
        "import sys\nfrom app.server import serve\nfrom app.settings import load_settings\nsys.exit(serve(load_settings()))"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code], env=settings, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def test_second_process_on_the_same_data_or_port_is_refused(tmp_path: Path) -> None:
    port = free_port()
    first = run(tmp_path / "data", SLUICE_PORT=port)
    with httpx2.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:

        def answers() -> bool:
            try:
                return client.get("/healthz").status_code == 200
            except httpx2.TransportError:
                assert first.poll() is None, first.communicate()
                return False

        eventually(answers, "the first process answers", 30)
        unready = client.get("/readyz")
        assert unready.status_code == 503
        assert "engine" in unready.json()["detail"]
    second, third = run(tmp_path / "data", SLUICE_PORT=free_port()), run(tmp_path / "other", SLUICE_PORT=port)
    reported = [process.communicate(timeout=30)[1] for process in (second, third)]
    assert (second.returncode, third.returncode) == (1, 1)
    assert f"another Sluice (process {first.pid}) runs on the data directory" in reported[0]
    assert f"127.0.0.1:{port} cannot be bound: Address already in use; choose another SLUICE_PORT" in reported[1]
    assert all(len(text.splitlines()) == 1 for text in reported), "one sentence, no traceback"
    first.send_signal(signal.SIGTERM)
    _, log = first.communicate(timeout=30)
    assert first.returncode == 0
    assert "Traceback" not in log
    assert [json.loads(line) for line in log.splitlines() if line.startswith("{")], "one JSON object a line"


def test_corrupt_database_is_refused_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "sluice.db").write_bytes(b"not a database at all" * 100)
    process = run(tmp_path, SLUICE_PORT=free_port())
    _, reported = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "is corrupt" in reported
    assert len(reported.splitlines()) == 1


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"GET /readyz HTTP/1.1\r\nX-Slow: a",
        b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n" + b"GET /readyz HTTP/1.1\r\nX-Slow: a",
    ],
    ids=["nothing", "half a head", "half a second head"],
)
def test_connection_without_a_complete_request_head_is_closed(
    served: Served, monkeypatch: pytest.MonkeyPatch, said: bytes
) -> None:
    monkeypatch.setattr(h11_protocol, "HEAD_TIMEOUT_SECONDS", 0.1)
    with socket.create_connection(served.listening.getsockname(), timeout=PATIENCE) as connection:
        connection.sendall(said)
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    assert answer.count(b"HTTP/1.1 ") == said.count(b"\r\n\r\n")


def test_answer_may_take_longer_than_the_request_head_timeout(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(h11_protocol, "HEAD_TIMEOUT_SECONDS", 0.1)
    served.fixture.image("web:1")
    body = {"service": "web", "image": "web:1", "healthcheck": {"test": ["CMD", "never"]}}
    with served.client as client:
        answer = client.post("/deployments", params={"wait": 1}, json=body)
    assert (answer.status_code, answer.json()["code"]) == (504, "wait_timeout")
