"""Valid and invalid specs: notations that users write, and values that must be refused."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from services.rollouts.requests.spec_errors import field_errors
from services.spec import ServiceSpec, resolve_count_or_percent
from services.text_forms import FORMS, ServiceName

LONG = "x" * 1_000_000


def spec(**fields: Any) -> ServiceSpec:
    return ServiceSpec.model_validate({"image": "web:1.5", **fields})


def test_image_alone_is_valid_spec() -> None:
    made = spec()
    assert (made.port, made.strategy, made.max_surge, made.max_unavailable) == (None, "rolling", "100%", 0)
    assert (made.stop_grace_period, made.drain_timeout, made.request_timeout, made.tunnel_timeout) == (30, 30, 60, 3600)
    assert (made.progress_deadline_seconds, made.failure_action, made.on_conflict) == (300, "rollback", "supersede")


GOOD: list[dict[str, Any]] = [
    {"image": "registry.example:5000/team/web@sha256:" + "a" * 64},
    {"image": "localhost:5000/a_b/c__d/e-f.g:V1.5_x"},
    {"image": "sha256:" + "0a" * 32},
    {"image": "1c80d54c8197"},
    {"port": None},
    {"replicas": 0},
    {"replicas": 100},
    {"environment": {"DEBUG": True, "WORKERS": 4, "RATE": 0.5, "TEXT": "a\nb", "EMPTY": ""}},
    {"healthcheck": {"path": "/up?deep=1", "expect_json": {"status": "UP"}, "headers": {"X-Check": "1"}}},
    {"healthcheck": {"tcp": True}},
    {"healthcheck": {"test": ["CMD", "true"]}},
    {"healthcheck": {"disable": True, "start_period": "1m30s"}},
    {"routes": [{"host": "Shop.example.com", "path_prefix": "/a"}, {"path_prefix": "/b", "strip_prefix": True}]},
    {"links": ["api", "db-1"]},
    {"resources": {"cpus": 0.5, "memory": "256m", "pids": 512}},
    {"volumes": ["data:/data:ro", {"type": "tmpfs", "target": "/tmp"}, "/srv/files:/files"]},
    {"labels": {"com.example/team": "shop"}},
    {
        "labels": {
            "traefik.http.routers.lab.tls.domains[0].main": "example.com",
            "caddy.@ws.0_header": "Connection *Upgrade*",
        }
    },
    {"labels": {" ü ": "x" * 100_000, "9": ""}},
    {"environment": {"ConnectionStrings:Default": "x", "2FA_ISSUER": "x", "a[0].b": "x", "ü ö": "x", "@": "x"}},
    {"volumes": ["v" * 255 + ":/data", "/srv/my files/@home/ü:/files"]},
    {"command": ["x" * 131_071], "healthcheck": {"test": ["CMD-SHELL", "x" * 131_071]}},
    {"logging": {"driver": "journald", "options": {"tag": "x"}}},
    {"stop_signal": "SIGINT"},
    {"stop_signal": "SIGRTMIN+3"},
    {"stop_signal": "9"},
    {"init": True},
    {"max_surge": 0, "max_unavailable": "25%"},
    {"max_surge": "0%", "max_unavailable": 0, "strategy": "recreate"},
    {"profiles": {"prod": {"replicas": 3, "environment": {"A": "1"}}, "local.dev": {}}},
    {"user": "1000:1000"},
    {"command": []},
]


@pytest.mark.parametrize("fields", GOOD, ids=str)
def test_common_notations_are_accepted(fields: dict[str, Any]) -> None:
    made = ServiceSpec.model_validate({"image": "web:1.5", **fields})
    assert ServiceSpec.model_validate(made.model_dump(mode="json")) == made


BAD: list[tuple[str, Any]] = [
    ("imgae", "web:2"),
    ("image", ""),
    ("image", 5),
    ("image", ["web:1"]),
    ("image", "web 1"),
    ("image", "-v"),
    ("image", "web:1\n"),
    ("image", "web:1\nbind *:80"),
    ("image", "web:1;rm"),
    ("image", "Web:1"),
    ("image", "http://registry.example/web"),
    ("image", "team//web"),
    ("image", "web:"),
    ("image", "web@sha256:12"),
    ("image", LONG),
    ("port", 0),
    ("port", 65536),
    ("port", "8000"),
    ("port", 80.5),
    ("port", True),
    ("replicas", -1),
    ("replicas", 101),
    ("replicas", "3"),
    ("replicas", True),
    ("replicas", 1.0),
    ("replicas", 10**30),
    ("command", "serve"),
    ("command", ["a\x00b"]),
    ("command", [LONG]),
    ("command", ["x"] * 257),
    ("entrypoint", [1]),
    ("working_dir", "srv"),
    ("working_dir", "/srv\n"),
    ("user", "root\n"),
    ("user", "a:b:c"),
    ("user", "$(id)"),
    ("environment", ["A=1"]),
    ("environment", {"A=B": "1"}),
    ("environment", {"": "1"}),
    ("environment", {"A\n": "1"}),
    ("environment", {"A": "\x00"}),
    ("environment", {"A": None}),
    ("environment", {"A": ["x"]}),
    ("environment", {"A": float("inf")}),
    ("environment", {"A": LONG}),
    ("environment", {f"A{n}": "" for n in range(1001)}),
    ("healthcheck", "none"),
    ("healthcheck", {"path": "up"}),
    ("healthcheck", {"path": "/up\r\nHost: x"}),
    ("healthcheck", {"path": "/a b"}),
    ("healthcheck", {"path": '/"'}),
    ("healthcheck", {"path": "/up", "tcp": True}),
    ("healthcheck", {"headers": {"A": "b"}}),
    ("healthcheck", {"path": "/", "headers": {"A:": "b"}}),
    ("healthcheck", {"path": "/", "headers": {"A": "b\r\nC: d"}}),
    ("healthcheck", {"test": []}),
    ("healthcheck", {"test": ["curl"]}),
    ("healthcheck", {"path": "/", "retries": 0}),
    ("healthcheck", {"path": "/", "interval": 0}),
    ("healthcheck", {"path": "/", "timeout": "-1s"}),
    ("healthcheck", {"path": "/", "start_period": "1 m"}),
    ("healthcheck", {"path": "/", "any_below_500": "x"}),
    ("healthcheck", {"path": "/" + LONG}),
    ("routes", {"path_prefix": "/"}),
    ("routes", [{"path_prefix": "shop"}]),
    ("routes", [{"path_prefix": "/shop\n"}]),
    ("routes", [{"path_prefix": "/a b"}]),
    ("routes", [{"path_prefix": "/a", "host": "a_b.example"}]),
    ("routes", [{"host": "x\ny"}]),
    ("routes", [{"host": "*.example.com"}]),
    ("routes", [{"host": "example.com/.."}]),
    ("routes", [{"path_prefix": "/"}] * 101),
    ("links", ["API"]),
    ("links", ["a/../b"]),
    ("links", ["a\n"]),
    ("resources", {"cpus": 0}),
    ("resources", {"cpus": float("nan")}),
    ("resources", {"memory": "5m"}),
    ("resources", {"memory": "lots"}),
    ("resources", {"memory": -1}),
    ("resources", {"pids": 0}),
    ("volumes", ["data"]),
    ("volumes", ["../etc:/etc"]),
    ("volumes", ["/a/../etc:/etc"]),
    ("volumes", ["data:relative"]),
    ("volumes", ["data:/data:rx"]),
    ("volumes", ["da ta:/data"]),
    ("volumes", [{"type": "bind", "source": "etc", "target": "/etc"}]),
    ("volumes", [{"type": "volume", "target": "/data"}]),
    ("volumes", [{"type": "npipe", "source": "x", "target": "/data"}]),
    ("volumes", [{"source": "a/b", "target": "/data"}]),
    ("volumes", [{"source": "data", "target": "/data\n"}]),
    ("networks", ["a b"]),
    ("networks", "backend"),
    ("labels", {"sluice.name": "x"}),
    ("labels", {"a\nb": "x"}),
    ("labels", {"a": 1}),
    ("labels", {"a=b": "x"}),
    ("labels", {"": "x"}),
    ("labels", {"a": "\x00"}),
    ("volumes", ["v" * 256 + ":/data"]),
    ("volumes", ["/a\nb:/data"]),
    ("logging", {"driver": "json file"}),
    ("stop_signal", "KILL\n"),
    ("stop_signal", "sigterm"),
    ("stop_signal", 15),
    ("init", "true"),
    ("init", 1),
    ("stop_signal", "SIGNOTHING"),
    ("stop_signal", "65"),
    ("stop_grace_period", -1),
    ("stop_grace_period", "soon"),
    ("stop_grace_period", True),
    ("stop_grace_period", float("inf")),
    ("stop_grace_period", float("nan")),
    ("stop_grace_period", 8 * 24 * 3600),
    ("drain_timeout", ""),
    ("drain_timeout", None),
    ("request_timeout", 0),
    ("upstream_keepalive", "perhaps"),
    ("upstream_keepalive", "true"),
    ("retry_with_idempotency_key", 1),
    ("strategy", "blue_green"),
    ("strategy", "Rolling"),
    ("max_surge", -1),
    ("max_surge", 101),
    ("max_surge", "101%"),
    ("max_surge", "25"),
    ("max_surge", "٢٥%"),
    ("max_surge", "25 %"),
    ("max_surge", 1.5),
    ("max_surge", True),
    ("max_surge", None),
    ("max_unavailable", "%"),
    ("max_unavailable", [1]),
    ("progress_deadline_seconds", 0),
    ("failure_action", "panic"),
    ("on_conflict", "ignore"),
    ("revision_history_limit", 0),
    ("profiles", {"a b": {}}),
    ("profiles", {"prod": {"profiles": {}}}),
    ("profiles", {"prod": {"replicas": -1}}),
    ("profiles", {"prod": "x"}),
    ("profiles", []),
    ("service", "web"),
]


@pytest.mark.parametrize(("field", "value"), BAD, ids=lambda value: repr(value)[:60])
def test_invalid_value_is_refused_with_name_of_field(field: str, value: Any) -> None:
    with pytest.raises(ValidationError) as refused:
        spec(**{field: value})
    errors = field_errors(refused.value)
    assert errors and all(error.message for error in errors)
    assert all(error.field.startswith(field) or error.field == "body" for error in errors)
    assert sum(len(error.message) for error in errors) < 100_000
    text = " ".join(error.message for error in errors)
    assert field in text or any(error.field.startswith(field) for error in errors)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"labels": {"a=b": "x"}}, "every one but '=' and control characters is allowed"),
        ({"environment": {"a\tb": "x"}}, "every one but '=' and control characters is allowed"),
        ({"environment": {"path": "\x00"}}, "every character but NUL"),
        ({"command": ["\x00"]}, "every character but NUL"),
        ({"volumes": ["da ta:/data"]}, "letters, digits, '_', '.' and '-'"),
        ({"volumes": ["/da\tta:/data"]}, "every character but control characters"),
        ({"healthcheck": {"path": "/", "headers": {"a b": "x"}}}, "letters, digits and !#$%&'*+.^_`|~-"),
        ({"healthcheck": {"path": "/", "headers": {"a": "ü"}}}, "printable ASCII"),
        ({"profiles": {"a b": {}}}, "letters, digits, '_', '.' and '-'"),
        ({"networks": ["a b"]}, "letters, digits, '_', '.' and '-'"),
    ],
    ids=str,
)
def test_refusal_names_the_allowed_characters(fields: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValidationError) as refused:
        spec(**fields)
    [error] = field_errors(refused.value)
    assert sentence in error.message


def test_every_pattern_of_the_spec_has_a_sentence() -> None:
    def patterns(schema: Any) -> set[str]:
        if isinstance(schema, dict):
            own = {schema["pattern"]} if isinstance(schema.get("pattern"), str) else set()
            named = set(schema.get("patternProperties", {}))
            return own | named | {each for value in schema.values() for each in patterns(value)}
        return {each for value in schema for each in patterns(value)} if isinstance(schema, list) else set()

    found = patterns(ServiceSpec.model_json_schema())
    assert len(found) > 15
    assert found <= FORMS.keys()


@pytest.mark.parametrize(
    "fields",
    [
        {"max_surge": 0, "max_unavailable": 0},
        {"max_surge": "0%", "max_unavailable": "0%"},
        {"max_surge": "00%"},
        {"min_ready_seconds": 300},
        {"routes": [{"path_prefix": "/a"}, {"path_prefix": "/a/"}]},
        {"routes": [{"host": "a.example"}, {"host": "A.example"}]},
    ],
    ids=str,
)
def test_contradictory_fields_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        spec(**fields)


@pytest.mark.parametrize("name", ["a", "web", "web-1", "a" * 40])
def test_valid_service_name_is_accepted(name: str) -> None:
    assert TypeAdapter(ServiceName).validate_python(name) == name


@pytest.mark.parametrize(
    "name",
    ["", "1web", "-web", "web-", "Web", "web_1", "a" * 41, "a/b", "..", "web\n", "web\x00", "wéb", "web.1", LONG, 5, None],
    ids=lambda name: repr(name)[:20],
)
def test_invalid_service_name_is_refused(name: Any) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(ServiceName).validate_python(name)


def test_writable_volume_recreates_unless_it_is_shared() -> None:
    assert spec(volumes=["data:/data"]).effective_strategy == "recreate"
    assert spec(volumes=["data:/data:ro"]).effective_strategy == "rolling"
    assert spec(volumes=[{"source": "data", "target": "/data", "shared": True}]).effective_strategy == "rolling"
    assert spec(volumes=[{"type": "tmpfs", "target": "/tmp"}]).effective_strategy == "rolling"
    assert spec(strategy="recreate").effective_strategy == "recreate"


@given(st.integers(0, 100), st.integers(0, 100))
def test_surge_rounds_up_and_unavailable_down(percent: int, replicas: int) -> None:
    exact = replicas * percent / 100
    up, down = (
        resolve_count_or_percent(f"{percent}%", replicas, up=True),
        resolve_count_or_percent(f"{percent}%", replicas, up=False),
    )
    assert down <= exact <= up < exact + 1
    assert down > exact - 1


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=10,
)


@given(st.dictionaries(st.sampled_from([*ServiceSpec.model_fields]), anything, max_size=6) | anything)
def test_any_json_is_accepted_or_refused_with_validation_error(value: Any) -> None:
    with suppress(ValidationError):
        try:
            ServiceSpec.model_validate(value)
        except ValidationError as refused:
            for error in field_errors(refused):
                json.dumps([error.field, error.message], ensure_ascii=True)
            raise


def test_deeply_nested_json_is_refused() -> None:
    deep: Any = "x"
    for _ in range(500):
        deep = {"a": deep}
    with pytest.raises(ValidationError):
        spec(resources=deep)
