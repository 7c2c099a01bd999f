"""Every error is an RFC 9457 problem with a code that the documentation declares; no input is a 500."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.main import create_app
from app.problems import CODES
from app.settings import Settings
from services import suggestions
from services.suggestions import MAX_SUGGESTIONS
from tests.support.app_fixture import AppFixture, build, living

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def app_fixture(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AppFixture]:
    """Provide one Sluice for all these tests, as they change nothing."""
    with living(build(tmp_path_factory.mktemp("data"))) as made:
        made.deploy()
        yield made


def routes() -> list[tuple[str, str]]:
    """Return every documented route as (method, path)."""
    paths = create_app(Settings()).openapi()["paths"]
    return [(method.upper(), path) for path, methods in paths.items() for method in methods]


def is_problem(answer: Any, status: int | None = None) -> dict[str, Any]:
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    reported: dict[str, Any] = answer.json()
    assert {"type", "title", "status", "detail", "code"} <= reported.keys()
    assert reported["status"] == answer.status_code
    assert reported["type"] == f"urn:sluice:problem:{reported['code']}"
    assert CODES[reported["code"]][0] == answer.status_code
    if answer.status_code == 422:
        assert all({"field", "message"} == wrong.keys() for wrong in reported["errors"])
        assert reported["errors"]
    if status is not None:
        assert answer.status_code == status, answer.text
    return reported


@pytest.mark.parametrize(("method", "path"), routes())
def test_routes_except_the_probes_answer_401_without_a_token(app_fixture: AppFixture, method: str, path: str) -> None:
    address = path.format(id=1, name="web", n=1)
    answer = app_fixture.client.request(method, address, headers={"Authorization": ""})
    if path in ("/healthz", "/readyz"):
        assert answer.status_code == 200
        return
    assert is_problem(answer, 401)["code"] == "unauthenticated"
    assert answer.headers["www-authenticate"] == "Bearer"
    for wrong in ("Bearer sl_nothing", "Basic YTpi", "Bearer " + "x" * 5000, f"Bearer {app_fixture.token}x"):
        is_problem(app_fixture.client.request(method, address, headers={"Authorization": wrong}), 401)


@pytest.mark.parametrize(("method", "path"), routes())
def test_unknown_query_parameter_is_named(app_fixture: AppFixture, method: str, path: str) -> None:
    address = path.format(id=1, name="web", n=1)
    reported = is_problem(app_fixture.client.request(method, address, params={"wiat": "1"}), 422)
    assert reported["errors"][0]["field"] == "wiat"


@pytest.mark.parametrize(("method", "path"), [route for route in routes() if "{" in route[1]])
@pytest.mark.parametrize("value", ["%00", "..%2f..%2fetc", "%0a", "999999999999999999999", "-1", "é", "a" * 5000, "%ff%fe"])
def test_path_parameter_never_causes_a_500(app_fixture: AppFixture, method: str, path: str, value: str) -> None:
    answer = app_fixture.client.request(method, path.format(id=value, name=value, n=value))
    assert answer.status_code in (404, 422), answer.text
    is_problem(answer)


def test_missing_object_is_404_and_unsupported_method_is_405(app_fixture: AppFixture) -> None:
    assert is_problem(app_fixture.client.get("/nope"), 404)["code"] == "not_found"
    for path, allowed in [
        ("/services", "GET, HEAD"),
        ("/deployments", "GET, HEAD, POST"),
        ("/services/web", "GET, HEAD, DELETE"),
        ("/services/web/scale", "POST"),
    ]:
        answer = app_fixture.client.put(path)
        assert is_problem(answer, 405)["code"] == "method_not_allowed"
        assert answer.headers["allow"] == allowed, "all of the path's, not the first route's alone"
    assert is_problem(app_fixture.client.get("/services/"), 404), "no redirect that drops a token or a body"
    for path, code in [
        ("/services/nope", "unknown_service"),
        ("/services/nope/revisions", "unknown_service"),
        ("/services/web/revisions/99", "revision_not_found"),
        ("/deployments/99", "unknown_deployment"),
        ("/deployments/99/events", "unknown_deployment"),
        ("/instances/nope", "unknown_instance"),
        ("/instances/nope/logs", "unknown_instance"),
    ]:
        assert is_problem(app_fixture.client.get(path), 404)["code"] == code


def test_not_found_is_a_page_for_browsers_and_a_problem_for_programs(app_fixture: AppFixture) -> None:
    page = app_fixture.client.get("/ui/nope", headers={"Accept": "text/html,*/*"})
    assert (page.status_code, page.headers["content-type"]) == (404, "text/html; charset=utf-8")
    assert "not found" in page.text
    is_problem(app_fixture.client.get("/ui/nope"), 404)
    is_problem(app_fixture.client.get("/nope", headers={"Accept": "text/html"}), 404)
    home = app_fixture.client.get("/", follow_redirects=False, headers={"Authorization": ""})
    assert (home.status_code, home.headers["location"]) == (303, "/ui/")


def nested(depth: int) -> bytes:
    return b'{"service": "web", "environment": ' + b'{"a":' * depth + b"1" + b"}" * depth + b"}"


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        (b"{", 400, None),
        (b"\xff\xfe", 400, None),
        (b'{"service": "web", "port": NaN}', 400, None),
        (b'{"service": "web", "port": ' + b"9" * 5000 + b"}", 400, None),
        (b"[]", 422, "body"),
        (b'"web"', 422, "body"),
        (b"", 422, "service"),
        (b"{}", 422, "service"),
        (b'{"service": null}', 422, "service"),
        (b'{"service": "web", "service": "api"}', 422, "service"),
        (b'{"service": "web", "note": "\\ud800"}', 422, "body"),
        (b'{"service": "web", "note": "a\\u0000b"}', 422, "note"),
        (b'{"service": "web", "mode": "merged"}', 422, "mode"),
        (b'{"service": "web", "expected_revision": "1"}', 422, "expected_revision"),
        (b'{"service": "web", "expected_revision": 1e400}', 422, "expected_revision"),
        (b'{"service": "../../etc", "image": "web:1"}', 422, "service"),
        (b'{"service": "web\\n", "image": "web:1"}', 422, "service"),
        (b'{"service": "web", "image": "web:1\\nFROM x"}', 422, "image"),
        (b'{"service": "web", "image": {"a": 1}}', 422, "image"),
        (b'{"service": "web", "replicas": 101}', 422, "replicas"),
        (b'{"service": "web", "replicas": true}', 422, "replicas"),
        (b'{"service": "web", "replcas": 3}', 422, "replcas"),
        (b'{"service": "web", "healthcheck": {"pathh": "/"}}', 422, "healthcheck.pathh"),
        (b'{"service": "web", "build": {"context": "."}}', 422, "build"),
        (b'{"service": "web", "eureka": {}}', 422, "eureka.url"),
        (b'{"service": "web", "volumes": ["/etc:/etc"]}', 422, "volumes.0.source"),
        (b'{"service": "web", "networks": ["nowhere"]}', 422, "networks"),
        (b'{"service": "web", "profile": "prod"}', 422, "profile"),
        (nested(10), 422, "environment.a"),
        (nested(100), 422, "body"),
        (nested(100_000), 422, "body"),
        (b'{"service": "web", "image": "' + b"a" * 1_000_000 + b'"}', 422, "image"),
        (b'{"service": "' + b"a" * 1_000_000 + b'"}', 422, "service"),
        (b'{"' + b"a" * 1_000_000 + b'": 1, "service": "web"}', 422, None),
        (b'{"service": "web", "image": "' + b"a" * 2_000_000 + b'"}', 413, None),
        (b'{"service": "web", "image": "' + b"a" * 5_000_000 + b'"}', 413, None),
    ],
)
def test_invalid_bodies_are_refused_by_field_and_start_nothing(
    app_fixture: AppFixture, body: bytes, status: int, field: str | None
) -> None:
    before = list(app_fixture.engine.calls)
    answer = app_fixture.client.post("/deployments", content=body)
    reported = is_problem(answer, status)
    if field is not None:
        assert reported["errors"][0]["field"] == field
    assert len(answer.content) < 4000, "an error does not echo what was sent"
    assert [call for call in app_fixture.engine.calls[len(before) :] if call[0] in ("pull", "start")] == []


def test_unknown_field_is_named_with_the_nearest_known_one(app_fixture: AppFixture) -> None:
    for path, body, near in [
        ("/deployments", {"service": "web", "imge": "web:2"}, '"image"'),
        ("/deployments", {"service": "web", "expected_revison": 3}, '"expected_revision"'),
        ("/services/web/scale", {"replica": 3}, '"replicas"'),
        ("/services/web/rollback", {"revision": 3}, '"to_revision"'),
        ("/tokens", {"name": "ci", "scope": "read", "service": ["web"]}, '"services"'),
    ]:
        reported = is_problem(app_fixture.client.post(path, json=body), 422)
        assert any(near in wrong["message"] for wrong in reported["errors"]), reported


@pytest.fixture
def searches(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Record the names for which the nearest known name is searched."""
    names: list[str] = []

    def noting(name: str, known: list[str], **options: Any) -> list[str]:
        assert len(name) <= 100
        assert len(known) <= 200
        names.append(name)
        return difflib.get_close_matches(name, known, **options)

    monkeypatch.setattr(suggestions, "get_close_matches", noting)
    return names


@pytest.mark.parametrize(("count", "reported"), [(100, 100), (40_000, 1)])
@pytest.mark.parametrize(("path", "more"), [("/deployments", {"service": "web"}), ("/services/web/scale", {"replicas": 1})])
def test_many_unknown_fields_cost_few_searches_for_the_nearest_name(
    app_fixture: AppFixture, searches: list[str], path: str, more: dict[str, Any], count: int, reported: int
) -> None:
    body = {**more, **{f"replicaz{number:05}": 1 for number in range(count)}}
    answer = is_problem(app_fixture.client.post(path, json=body), 422)
    assert len(answer["errors"]) == reported
    assert len(searches) <= MAX_SUGGESTIONS
    if reported == 1:
        assert answer["errors"] == [{"field": "body", "message": "has 40000 errors; no more than 200 are named"}]


def test_compose_file_with_many_unknown_keys_and_services_costs_few_searches(
    app_fixture: AppFixture, searches: list[str]
) -> None:
    services = "".join(f"  s{number}: {{imagee: x}}\n" for number in range(2_000))
    options: Any = {"content": f"name: shop\nservices:\n{services}", "headers": {"Content-Type": "application/yaml"}}
    for query in ("", "?only=" + ",".join(f"z{number}" for number in range(500))):
        searches.clear()
        reported = is_problem(app_fixture.client.post(f"/apply{query}", **options), 422)
        assert len(reported["errors"]) == 100
        assert 0 < len(searches) <= MAX_SUGGESTIONS


def test_duplicate_name_among_many_is_found_in_one_pass(app_fixture: AppFixture) -> None:
    names = ",".join(f'"n{number}":1' for number in range(70_000))
    reported = is_problem(app_fixture.client.post("/deployments", content=f'{{{names},"n69999":2}}'), 422)
    assert reported["errors"] == [{"field": "n69999", "message": "duplicate key"}]


def test_refused_change_leaves_an_audit_event_and_nothing_else(app_fixture: AppFixture) -> None:
    deployments, events = app_fixture.count("/deployments"), app_fixture.count("/audit")
    app_fixture.client.post("/deployments", json={"service": "fresh", "imge": "x"})
    app_fixture.client.post("/services/web/scale", json={"replicas": -1})
    app_fixture.client.delete("/services/nope")
    assert app_fixture.count("/deployments") == deployments
    assert app_fixture.count("/services") == 1
    assert app_fixture.count("/audit") == events + 3
    newest = app_fixture.client.get("/audit?limit=3").json()["items"]
    assert [event["type"] for event in newest] == ["refused"] * 3
    assert [event["data"]["code"] for event in newest] == ["unknown_service", "invalid", "invalid_spec"]
    assert newest[2]["service"] == "fresh"
    assert newest[0]["actor"] == {"kind": "token", "name": "admin"}


def test_internal_error_is_a_500_without_details(
    app_fixture: AppFixture, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: Any) -> None:
        raise RuntimeError("the password is hunter2")

    monkeypatch.setattr(type(app_fixture.sluice.store), "read", broken)
    answer = app_fixture.client.get("/services")
    assert is_problem(answer, 500)["code"] == "internal"
    assert "hunter2" not in answer.text


def test_problem_codes_that_are_raised_are_in_the_catalogue() -> None:
    raised: dict[str, str] = {}
    for path in [*ROOT.glob("services/**/*.py"), *ROOT.glob("app/**/*.py")]:
        found = re.findall(r'(?:RequestError\(\s*(\d+),|Problem\()\s*"([a-z_]+)"', path.read_text())
        raised |= {code: status for status, code in found if status or code not in raised}
    assert raised.keys() - CODES.keys() == set()
    assert {"invalid_spec", "unknown_service", "wait_timeout"} <= raised.keys()
    assert {code: int(status) for code, status in raised.items() if status and int(status) != CODES[code][0]} == {}


def test_api_page_names_every_route_and_every_problem_code() -> None:
    page = (ROOT / "docs" / "api.md").read_text()
    for code, (status, _) in CODES.items():
        assert f"| {status} | `{code}` |" in page, code
    for _, path in routes():
        parts = [part for part in path.split("/") if part and "{" not in part]
        assert all(part in page for part in parts), path


def test_openapi_document_declares_every_error_with_an_example(app_fixture: AppFixture) -> None:
    document = app_fixture.client.get("/openapi.json").json()
    text = json.dumps(document)
    for reference in set(re.findall(r'"#/components/schemas/([^"]+)"', text)):
        assert reference in document["components"]["schemas"], reference
    assert "HTTPValidationError" not in text
    for path, methods in document["paths"].items():
        for method, route in methods.items():
            where = f"{method} {path}"
            for status, answer in route["responses"].items():
                if int(status) >= 400:
                    content = answer["content"]["application/problem+json"]
                    assert content["examples"], f"{where} {status}"
                elif int(status) not in (204,):
                    kinds = answer["content"]
                    assert any("example" in kind or "examples" in kind for kind in kinds.values()), f"{where} {status}"
            body = route.get("requestBody")
            if body and path != "/builds":  # its body is not JSON
                assert body["content"]["application/json"]["examples"], where
            if path not in ("/healthz", "/readyz"):
                assert "401" in route["responses"], where
                assert route["security"] == [{"token": []}], where


@pytest.mark.parametrize("path", ["/healthz", "/services", "/services/web", "/services/nope", "/deployments/1/events"])
def test_head_request_answers_like_get_without_the_body(app_fixture: AppFixture, path: str) -> None:
    asked, got = app_fixture.client.head(path), app_fixture.client.get(path)
    assert (asked.status_code, asked.content) == (got.status_code, b"")
    assert asked.headers["content-type"] == got.headers["content-type"]
    assert asked.headers["content-length"] == str(len(got.content))


def test_head_request_of_a_stream_ends_at_once(app_fixture: AppFixture) -> None:
    answer = app_fixture.client.head("/events", headers={"Accept": "text/event-stream"})
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["content-type"].startswith("text/event-stream")


def test_head_request_of_a_post_only_route_is_405(app_fixture: AppFixture) -> None:
    answer = app_fixture.client.head("/services/web/scale")
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
