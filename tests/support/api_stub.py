"""Scripted stub of Sluice's API (docs/api.md) over real sockets.

A deployment proceeds as its events are read.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from pydantic import ValidationError

from services.rollouts.requests.spec_errors import field_errors
from services.spec import ServiceSpec
from tests.support.cli_scripts import Document, Request, Step, instance, page, problem, script

TOKEN = "sl_stub"


class Stub:
    """Stub server and its settings.

    `outcome`: how the next deployment ends. `faults`: "lose answer", "503" or "cut"; each request uses up one.
    """

    def __init__(self) -> None:
        self.outcome = "succeeded"
        self.faults: list[str] = []
        self.requests: list[Request] = []
        self.deployments: dict[int, Document] = {}
        self.steps: dict[int, list[Step]] = {}
        self.happened: dict[int, int] = {}
        self.keys: dict[str, int] = {}
        self.services: dict[str, Document] = {}
        self.instances: dict[str, Document] = {}
        self.tokens: list[Document] = []
        self.logs: dict[str, list[str]] = {}
        self.problem: tuple[int, Document] | None = None
        self.hold: threading.Event | None = None
        """If set to an event, streams stop before the last message until that event is set."""
        self.port = 0
        self.streams_open = threading.Event()
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None
        self.stopping = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        self.stopping.clear()
        server = _Server(("127.0.0.1", self.port), _handler(self))
        self.port = server.server_address[1]
        self._server = server
        self._thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    def stop(self) -> None:
        if self._server is None or self._thread is None:
            return
        self.stopping.set()
        self._server.shutdown()
        self._thread.join()
        self._server.close_connections()
        self._server.server_close()
        self._server = None

    def asked(self, method: str, path: str) -> list[Request]:
        return [request for request in self.requests if (request.method, request.path) == (method, path)]

    def new_deployment(self, service: str, kind: str, body: Document) -> Document:
        number = 17 + len(self.deployments)
        revision = 4 if kind == "deploy" else 3
        document = {
            "id": number, "service": service, "kind": kind, "status": "progressing", "reason": None, "message": "begun",
            "revision": revision, "from_revision": 3, "strategy": "rolling", "profile": body.get("profile"),
            "image": body.get("image", "web:1.4"), "image_id": "sha256:1", "note": body.get("note"),
            "created_by": {"kind": "token", "name": "ci"}, "created_at": "2026-11-24T20:00:00.000Z",
            "started_at": "2026-11-24T20:00:00.100Z", "finished_at": None, "deadline_at": None,
            "progress": {"desired": 2, "ready": 0, "serving": 0, "old_serving": 1, "draining": 0, "failed": 0},
            "traffic": [{"revision": 3, "percent": 100}], "warnings": [], "retry_of": None, "superseded_by": None,
            "instances": [instance(f"{service}-r3-1", service, 3, "serving", in_flight=2)], "actions": ["pause", "abort"],
            "links": {"self": f"/deployments/{number}"},
        }  # fmt: skip
        self.deployments[number] = document
        self.steps[number] = script(self.outcome, document)
        self.happened[number] = 0
        if self.outcome == "unchanged":
            document |= {"status": "succeeded", "reason": "unchanged", "finished_at": document["created_at"]}
        self.services.setdefault(service, self.service(service))
        return document

    def service(self, name: str) -> Document:
        return {
            "name": name, "status": "serving", "state": "serving", "url": f"http://127.0.0.1:8080/{name}", "internal_url": "http://10.203.0.1:20000",
            "spec": {"image": "web:1.5"}, "revision": 4, "profile": None, "replicas": 2, "serving": 2, "deployment": None,
            "warnings": [],
        }  # fmt: skip

    def happen(self, number: int) -> tuple[int, Step]:
        """Perform the next step of a deployment; return its number and the step."""
        step = self.steps[number][self.happened[number]]
        self.happened[number] += 1
        document = self.deployments[number]
        document |= step.deployment
        if step.instance:
            known = {entry["id"]: entry for entry in document["instances"]}
            revision = int(step.instance.split("-r")[1].split("-")[0])
            entry = known.get(step.instance) or instance(step.instance, document["service"], revision, "starting")
            status = step.type.removeprefix("instance_")
            known[step.instance] = {**entry, "status": status, **step.about_instance}
            document["instances"] = list(known.values())
            self.instances |= known
        return self.happened[number], step


@contextmanager
def running_stub() -> Iterator[Stub]:
    stub = Stub()
    stub.start()
    try:
        yield stub
    finally:
        stub.stop()


class _Server(ThreadingHTTPServer):
    daemon_threads = False
    allow_reuse_address = True

    def __init__(self, *args: Any) -> None:
        self.connections: list[Any] = []
        super().__init__(*args)

    def process_request(self, request: Any, client_address: Any) -> None:
        self.connections.append(request)
        super().process_request(request, client_address)

    def close_connections(self) -> None:
        for connection in self.connections:
            try:
                connection.shutdown(2)
            except OSError:
                continue


class Gone(Exception):
    """Ends the connection without an answer."""


def _handler(stub: Stub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_args: Any) -> None: ...

        def do_GET(self) -> None:
            self._serve()

        def do_POST(self) -> None:
            self._serve()

        def do_DELETE(self) -> None:
            self._serve()

        def _serve(self) -> None:
            parts = urlsplit(self.path)
            raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            headers = {name.lower(): value for name, value in self.headers.items()}
            body = json.loads(raw) if raw else None
            request = Request(self.command, parts.path, dict(parse_qsl(parts.query)), headers, body)
            stub.requests.append(request)
            fault = stub.faults.pop(0) if stub.faults and self.command in ("POST", "DELETE") else ""
            try:
                if fault == "503":
                    self._answer(503, problem(503, "stopping", "Sluice is being restarted"), {"Retry-After": "0"})
                    return
                if headers.get("authorization") != f"Bearer {TOKEN}" and parts.path not in ("/healthz", "/readyz"):
                    self._answer(401, problem(401, "unauthenticated", "missing token"))
                    return
                if stub.problem and self.command != "GET":
                    self._answer(stub.problem[0], stub.problem[1])
                    return
                answer = next(
                    (act, match)
                    for method, pattern, act in ROUTES
                    if method == self.command and (match := re.fullmatch(pattern, parts.path))
                )
                status, document = answer[0](self, stub, request, *answer[1].groups())
                if fault == "lose answer":
                    raise Gone
                if status:
                    self._answer(status, document)
            except StopIteration:
                self._answer(404, problem(404, "not_found", f"there is no {parts.path}"))
            except (Gone, ConnectionError):
                self.close_connection = True

        def _answer(self, status: int, document: Any, headers: dict[str, str] | None = None) -> None:
            body = b"" if document is None else json.dumps(document).encode()
            self.send_response(status)
            kind = "application/problem+json" if status >= 400 else "application/json"
            for name, value in {"Content-Type": kind, "Content-Length": str(len(body)), **(headers or {})}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def begin_stream(self, kind: str) -> None:
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Connection", "close")
            self.end_headers()
            self.close_connection = True

        def write(self, text: str) -> None:
            self.wfile.write(text.encode())
            self.wfile.flush()

    return Handler


Answer = tuple[int, Any]


def _deploy(_handler: Any, stub: Stub, request: Request) -> Answer:
    key = request.headers["idempotency-key"]
    if key in stub.keys:
        return 202, stub.deployments[stub.keys[key]]
    spec = {n: v for n, v in request.body.items() if n not in ("service", "mode", "note", "profile", "expected_revision")}
    try:
        ServiceSpec.model_validate(spec)
    except ValidationError as error:
        errors = [{"field": each.field, "message": each.message} for each in field_errors(error)]
        return 422, problem(422, "invalid_spec", "the spec is not valid", errors)
    made = stub.new_deployment(request.body["service"], "deploy", request.body)
    stub.keys[key] = made["id"]
    return 202, made


def _change(_handler: Any, stub: Stub, request: Request, service: str, kind: str) -> Answer:
    return 202, stub.new_deployment(service, kind, request.body)


def _remove(_handler: Any, stub: Stub, _request: Request, service: str) -> Answer:
    return 202, stub.new_deployment(service, "remove", {})


def _act(_handler: Any, stub: Stub, _request: Request, number: str, action: str) -> Answer:
    document = stub.deployments[int(number)]
    if action == "retry":
        return 202, {**stub.new_deployment(document["service"], "deploy", {}), "retry_of": int(number)}
    if action not in document["actions"]:
        detail = f"deployment is {document['status']}: {action} not possible; allowed: retry"
        return 409, problem(409, "not_in_that_state", detail)
    document |= {"status": {"pause": "paused", "resume": "progressing", "abort": "rolling_back"}[action], "reason": "user"}
    return 200, document


def _deployments(_handler: Any, stub: Stub, request: Request) -> Answer:
    wanted = {"service": request.query.get("service"), "status": request.query.get("status")}
    found = [d for d in stub.deployments.values() if all(v is None or d[n] == v for n, v in wanted.items())]
    return 200, page(found[::-1], request)


def _deployment(_handler: Any, stub: Stub, _request: Request, number: str) -> Answer:
    if int(number) not in stub.deployments:
        return 404, problem(404, "unknown_deployment", f"deployment {number} not found")
    return 200, stub.deployments[int(number)]


def _events(handler: Any, stub: Stub, request: Request, number: str) -> Answer:
    handler.begin_stream("text/event-stream")
    deployment = stub.deployments[int(number)]
    after = int(request.headers.get("last-event-id", 0))
    cut = "cut" in stub.faults
    steps = stub.steps[int(number)]
    handler.write(": here you are\n\n")
    for position in range(after, len(steps)):
        if stub.hold and position == len(steps) - 1:
            stub.streams_open.set()
            while not stub.hold.wait(0.02):
                if stub.stopping.is_set():
                    raise Gone
        if position >= stub.happened[int(number)]:
            stub.happen(int(number))
        step = steps[position]
        event = {
            "id": position + 1, "type": step.type, "message": step.message, "instance": step.instance,
            "at": f"2026-11-24T20:00:0{min(position, 9)}.500Z", "deployment": deployment["id"],
            "service": deployment["service"], "data": {},
        }  # fmt: skip
        handler.write(f"id: {position + 1}\nevent: {step.type}\ndata: {json.dumps(event)}\n\n")
        if cut and position == after + 2:
            stub.faults.remove("cut")
            raise Gone
    return 0, None


def _services(_handler: Any, stub: Stub, request: Request) -> Answer:
    return 200, page(list(stub.services.values()), request)


def _service(_handler: Any, stub: Stub, _request: Request, name: str) -> Answer:
    if name not in stub.services:
        return 404, problem(404, "unknown_service", f"service {name} not found")
    return 200, stub.services[name]


def _instances(_handler: Any, stub: Stub, request: Request) -> Answer:
    service, status = request.query.get("service"), request.query.get("status")
    found = [i for i in stub.instances.values() if service in (None, i["service"])]
    gone = ("stopped", "failed")
    shown = [i for i in found if i["status"] == status] if status else [i for i in found if i["status"] not in gone]
    return 200, page(shown, request)


def _instance(_handler: Any, stub: Stub, _request: Request, name: str) -> Answer:
    if name not in stub.instances:
        return 404, problem(404, "unknown_instance", f"instance {name} not found")
    return 200, stub.instances[name]


def _logs(handler: Any, stub: Stub, request: Request, name: str) -> Answer:
    tail = int(request.query["tail"])
    if name not in stub.logs:
        return 410, problem(410, "logs_gone", f"the container of {name} was removed, and its log with it")
    handler.begin_stream("text/plain")
    for line in stub.logs.get(name, [])[-tail:]:
        handler.write(line + "\n")
        if "cut" in stub.faults:
            stub.faults.remove("cut")
            raise Gone
    if request.query.get("follow"):
        stub.instances[name]["status"] = "stopped"
    return 0, None


def _service_logs(handler: Any, stub: Stub, _request: Request, name: str) -> Answer:
    """Stream all log lines from the first one, even if read before; then wait until the stub stops."""
    handler.begin_stream("text/event-stream")
    said = [(who, line) for who, lines in stub.logs.items() for line in lines if who.startswith(f"{name}-r")]
    for number, (who, line) in enumerate(said):
        data = {"instance": who, "at": f"2026-11-24T20:00:00.{number:09}Z", "text": line}
        handler.write(f"event: line\ndata: {json.dumps(data)}\nid: {data['at']}\n\n")
        if "cut" in stub.faults:
            stub.faults.remove("cut")
            raise Gone
    stub.stopping.wait()
    return 0, None


def _ready(_handler: Any, stub: Stub, _request: Request) -> Answer:
    if stub.problem:
        return stub.problem
    return 200, {"status": "ready", "engine": {"ok": True, "version": "20.10"}, "store_behind_engine": []}


def _version(_handler: Any, _stub: Stub, _request: Request) -> Answer:
    return 200, {"version": "9.9.9"}


def _new_token(_handler: Any, stub: Stub, request: Request) -> Answer:
    token = {"id": len(stub.tokens) + 1, **request.body, "created_at": "2026-11-24T20:00:00.000Z"}
    stub.tokens.append(token)
    return 201, {**token, "token": "sl_secret"}


def _tokens(_handler: Any, stub: Stub, request: Request) -> Answer:
    return 200, page(stub.tokens, request)


def _revoke(_handler: Any, stub: Stub, _request: Request, number: str) -> Answer:
    stub.tokens = [token for token in stub.tokens if token["id"] != int(number)]
    return 204, None


def _sign_in(_handler: Any, stub: Stub, _request: Request) -> Answer:
    return 201, {"url": f"{stub.url}/ui/sign-in?link=once"}


ROUTES: list[tuple[str, str, Callable[..., Answer]]] = [
    ("POST", "/deployments", _deploy),
    ("GET", "/deployments", _deployments),
    ("GET", r"/deployments/(\d+)", _deployment),
    ("GET", r"/deployments/(\d+)/events", _events),
    ("POST", r"/deployments/(\d+)/(pause|resume|abort|retry)", _act),
    ("POST", "/services/([a-z0-9-]+)/(scale|rollback|restart)", _change),
    ("DELETE", "/services/([a-z0-9-]+)", _remove),
    ("GET", "/services", _services),
    ("GET", "/services/([a-z0-9-]+)", _service),
    ("GET", "/services/([a-z0-9-]+)/logs", _service_logs),
    ("GET", "/instances", _instances),
    ("GET", "/instances/([a-z0-9-]+)", _instance),
    ("GET", "/instances/([a-z0-9-]+)/logs", _logs),
    ("GET", "/readyz", _ready),
    ("GET", "/version", _version),
    ("POST", "/tokens", _new_token),
    ("GET", "/tokens", _tokens),
    ("DELETE", r"/tokens/(\d+)", _revoke),
    ("POST", "/sign-in-links", _sign_in),
]
