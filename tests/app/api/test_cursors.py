"""A cursor is `next` of a page, or it is refused: no list answers with a server error, whatever JSON the cursor holds."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from app.api.params import decode_cursor, encode_cursor
from app.main import create_app
from app.problems import Problem
from app.settings import Settings
from tests.support.app_fixture import AppFixture, build, eventually, living

PAGES = ("/ui/history", "/ui/audit")
LISTS = [
    path.format(id=1, name="web")
    for path, methods in create_app(Settings()).openapi()["paths"].items()
    if any(parameter["name"] == "cursor" for parameter in methods.get("get", {}).get("parameters", []))
]
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(["\ud800", "\x00"])
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=2))


@pytest.fixture(scope="module")
def app_fixture(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AppFixture]:
    with living(build(tmp_path_factory.mktemp("data"))) as made:
        made.image("web:1")
        eventually(lambda: made.client.get("/readyz").status_code == 200, "the loop has begun")
        assert made.client.post("/deployments?wait=20", json={"service": "web", "image": "web:1"}).status_code == 200
        yield made


def encoded(value: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


def test_paged_lists_are_found_in_the_openapi_document() -> None:
    assert len(LISTS) >= 8


@pytest.mark.parametrize(
    "value",
    [
        [True], [False], [1.5], [[1]], [{"a": 1}], [None], ["1"], [2**53], [-(2**63)], [10**60], 1, True, {"0": 1}, [],
        [1, 2], [1, "a", 2], [True, "a"], [1, True], [float("nan"), "a"], [float("inf"), "a"], [[1], "a"], [1, ["a"]],
        [1, "\ud800"], [1, "a\x00"], [10**60, "a"],
    ],
    ids=str,
)  # fmt: skip
def test_cursor_of_another_type_is_refused_by_every_list(app_fixture: AppFixture, value: Any) -> None:
    for path in LISTS:
        answer = app_fixture.client.get(path, params={"cursor": encoded(value)})
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid"), path
    for path in PAGES:
        assert app_fixture.client.get(path, params={"cursor": encoded(value)}).status_code == 422, path


@pytest.mark.parametrize("cursor", ["", "=", "é", "*", "W10", "A" * 200, "W1tb" * 3000])
def test_cursor_without_json_is_refused(app_fixture: AppFixture, cursor: str) -> None:
    for path in (*LISTS, *PAGES):
        assert app_fixture.client.get(path, params={"cursor": cursor}).status_code == 422, path


@pytest.mark.parametrize("id", ["x", "0001-01-01T00:00:00", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59-23:59", "1e9"])
def test_log_stream_refuses_an_invalid_last_event_id(app_fixture: AppFixture, id: str) -> None:
    answer = app_fixture.client.get("/services/web/logs", headers={"Accept": "text/event-stream", "Last-Event-ID": id})
    assert answer.status_code == 422


@given(value=VALUES, more=st.lists(SCALARS, max_size=2))
@example(value=1, more=[])
@example(value=1.5, more=["web"])
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_cursor_never_causes_a_server_error(app_fixture: AppFixture, value: Any, more: list[Any]) -> None:
    for cursor in (encoded(value), encoded([value, *more])):
        if len(cursor) <= 200:
            for path in (*LISTS, *PAGES):
                assert app_fixture.client.get(path, params={"cursor": cursor}).status_code in (200, 422), path


@given(kinds=st.lists(st.sampled_from([int, float, str]), min_size=1, max_size=3), data=st.data())
def test_cursor_decodes_to_its_values(kinds: list[type], data: st.DataObject) -> None:
    number = st.integers(1 - 2**53, 2**53 - 1)
    made = {int: number, float: number | st.floats(allow_nan=False, allow_infinity=False), str: st.text("abc-123")}
    values = [data.draw(made[kind]) for kind in kinds]
    assert decode_cursor(encode_cursor(*values), *kinds) == values
    with pytest.raises(Problem):
        decode_cursor(encode_cursor(*values, 1), *kinds)
