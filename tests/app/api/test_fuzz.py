"""Schemathesis calls the documented API as an admin: no server error, documented answers, success on every route."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import content_type_conformance, response_schema_conformance, status_code_conformance

from app.main import create_app
from app.settings import Settings
from tests.app.api.test_builds import ENDLESS, TAR, tar
from tests.app.test_server import Served, serving
from tests.support.app_fixture import NEVER, READY, build
from tests.tiers import examples

pytestmark = pytest.mark.slow
CHECKS: list[Any] = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
REAL: dict[str, list[Any]] = {"id": [1, 2, 3], "name": ["web", "web-r1-1", "api"], "n": [1]}
"""Values of path parameters that name existing objects."""
OPERATIONS = [
    (path, method)
    for path, methods in create_app(Settings()).openapi()["paths"].items()
    for method in methods
]  # fmt: skip


@schemathesis.serializer("application/x-tar", "application/gzip")
def _as_bytes(_context: schemathesis.SerializationContext, value: Any) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode(errors="replace")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Serve services, deployments in several states, and an image that every pull finds."""
    app_fixture = build(tmp_path_factory.mktemp("data"))
    app_fixture.image("web:1", "web:2", "web:1.5")
    with serving(app_fixture) as made:
        with made.client as client:
            for service in ("web", "api"):
                body = {"service": service, "image": "web:1", "healthcheck": READY}
                assert client.post("/deployments?wait=20", json=body).status_code == 200
            body = {"service": "api", "image": "web:2", "healthcheck": NEVER}
            assert client.post("/deployments", json=body).status_code == 202
        yield made


@pytest.mark.parametrize(("path", "method"), OPERATIONS)
def test_operation_answers_any_input_as_documented_without_a_server_error(served: Served, path: str, method: str) -> None:
    schema = schemathesis.openapi.from_dict(create_app(Settings()).openapi())
    operation = schema[path][method.upper()]

    @given(case=operation.as_strategy(), data=st.data())
    @settings(
        max_examples=examples(10, full=50),
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.explicit, Phase.generate],
        database=None,
        derandomize=True,
    )
    def ask(case: Any, data: Any) -> None:
        for name, known in REAL.items():
            if name in case.path_parameters and data.draw(st.booleans()):
                case.path_parameters[name] = data.draw(st.sampled_from(known))
        if path == "/tokens/{id}" and str(case.path_parameters["id"]) == "1":
            case.path_parameters["id"] = 2  # this test's own
        for endless in ("wait", "follow"):
            case.query.pop(endless, None)
        headers = {"Authorization": f"Bearer {served.fixture.token}"}
        case.call_and_validate(base_url=served.url, headers=headers, checks=CHECKS, timeout=20)

    ask()


def test_operation_of_every_route_succeeds_at_least_once(served: Served) -> None:
    done: set[tuple[str, str]] = set()

    with served.client as client:

        def ask(method: str, path: str, body: Any = None, *, query: str = "", **parameters: Any) -> Any:
            sent = {"content": body, "headers": TAR} if isinstance(body, bytes) else {"json": body}
            answer = client.request(method, path.format(**parameters) + query, **sent)
            assert answer.is_success, f"{method} {path}: {answer.status_code} {answer.text}"
            done.add((path, method.lower()))
            return answer.json() if "json" in answer.headers.get("content-type", "") else answer.text

        compose = "name: shop\nservices: {two: {image: 'web:1', x-sluice: {healthcheck: {disable: true}}}}"
        ask("POST", "/apply", {"compose": compose}, query="?wait=20")
        made = ask("POST", "/deployments", {"service": "one", "image": "web:1", "healthcheck": READY}, query="?wait=20")
        instance = made["instances"][0]["id"]
        ask("POST", "/builds", tar(), query="?service=one&wait=20")
        endless = ask("POST", "/builds", tar(ENDLESS), query="?service=one")["id"]
        ask("POST", "/builds/{id}/cancel", id=endless)
        ask("GET", "/builds")
        ask("GET", "/builds/{id}", id=1)
        ask("GET", "/builds/{id}/log", id=1)
        ask("GET", "/deployments")
        ask("GET", "/deployments/{id}", id=made["id"])
        ask("GET", "/deployments/{id}/events", id=made["id"])
        ask("POST", "/deployments", {"service": "one", "image": "web:2", "healthcheck": READY}, query="?wait=20")
        ask("POST", "/services/{name}/rollback", {}, query="?wait=20", name="one")
        ask("POST", "/services/{name}/restart", {}, query="?wait=20", name="one")
        ask("POST", "/services/{name}/scale", {"replicas": 2}, query="?wait=20", name="one")
        stuck = ask("POST", "/deployments", {"service": "one", "image": "web:1.5", "healthcheck": NEVER})["id"]
        while ask("GET", "/deployments/{id}", id=stuck)["status"] != "progressing":
            pass
        for action in ("pause", "resume", "abort"):
            ask("POST", f"/deployments/{{id}}/{action}", id=stuck)
        ask("GET", "/deployments/{id}", query="?wait=20", id=stuck)
        again = ask("POST", "/deployments/{id}/retry", id=stuck)["id"]
        ask("GET", "/deployments/{id}", id=again)
        ask("GET", "/services")
        ask("GET", "/services/{name}", name="one")
        ask("GET", "/services/{name}/revisions", name="one")
        ask("GET", "/services/{name}/revisions/{n}", name="one", n=1)
        ask("GET", "/instances")
        ask("GET", "/instances/{name}", name=instance)
        running = ask("GET", "/instances", query="?service=one&status=serving")["items"][0]["id"]
        ask("GET", "/instances/{name}/logs", name=running)
        ask("GET", "/services/{name}/logs", name="one")
        ask("GET", "/services/{name}/revisions/{n}/diff", name="one", n=1)
        ask("GET", "/services/{name}/figures", name="one")
        ask("GET", "/events")
        ask("GET", "/audit")
        token = ask("POST", "/tokens", {"name": "ci", "scope": "read"})
        ask("GET", "/tokens")
        ask("DELETE", "/tokens/{id}", id=token["id"])
        ask("POST", "/sign-in-links")
        ask("POST", "/gateway/upgrade", {"force": True})
        for path in ("/healthz", "/readyz", "/metrics", "/version", "/gateway", "/doctor", "/registry"):
            ask("GET", path)
        ask("DELETE", "/services/{name}", query="?wait=30", name="one")
    assert done == set(OPERATIONS)
