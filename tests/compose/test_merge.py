"""Several Compose files, merged by Compose's rules into one whose lines know where they came from."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.compose.document import ComposeError, ComposeFinding, Node, parse, parse_layer
from services.compose.merge import merge
from services.compose.reader import ComposeOptions, read
from services.compose.serialization import serialize

HERE = {"TAG": "2", "N": "3", "MONEY": "a$b"}


def merged(*files: str) -> Node:
    named = zip(("base.yaml", "prod.yaml", "more.yaml"), files, strict=False)
    return merge([parse_layer(text, HERE, name) for name, text in named])


def plain(node: Node) -> Any:
    if isinstance(node.value, dict):
        return {name: plain(value) for name, value in node.value.items()}
    return [plain(item) for item in node.value] if isinstance(node.value, list) else node.value


def web(base: str, over: str) -> Any:
    """Return a service of which `base` and `over` are one key each."""
    return plain(merged(f"services:\n  web:\n    {base}", f"services:\n  web:\n    {over}"))["services"]["web"]


RULES: list[tuple[str, str, dict[str, Any]]] = [
    ("image: web:1", "image: web:2", {"image": "web:2"}),
    ("image: web:1", "user: app", {"image": "web:1", "user": "app"}),
    ("image: web:1", "image: web:${TAG}", {"image": "web:2"}),
    ("deploy: {replicas: 1, mode: replicated}", "deploy: {replicas: 2}", {"deploy": {"replicas": 2, "mode": "replicated"}}),
    ("profiles: [a]", "profiles: [b]", {"profiles": ["a", "b"]}),
    ("command: [a, b]", "command: [c]", {"command": ["c"]}),
    ("entrypoint: [a]", "entrypoint: b c", {"entrypoint": "b c"}),
    ("command: [a]", "command: null", {"command": None}),
    ("healthcheck: {test: [CMD, a], retries: 2}", "healthcheck: {test: b}", {"healthcheck": {"test": "b", "retries": 2}}),
    ("environment: {A: 1, B: 2}", "environment: [B=3, C]", {"environment": {"A": 1, "B": "3", "C": None}}),
    ("environment: [A=1, B=2]", "environment: {B: x}", {"environment": {"A": "1", "B": "x"}}),
    ("labels: [a=1]", "labels: {b: c}", {"labels": {"a": "1", "b": "c"}}),
    ("volumes: ['foo:/work', 'x:/x']", "volumes: ['bar:/work:ro']", {"volumes": ["bar:/work:ro", "x:/x"]}),
    (
        "volumes: ['foo:/work']",
        "volumes: [{type: volume, source: bar, target: /work}]",
        {"volumes": [{"type": "volume", "source": "bar", "target": "/work"}]},
    ),
    ("ports: ['8080:80']", "ports: ['8080:80', '8443:443']", {"ports": ["8080:80", "8443:443"]}),
    ("ports: ['8080:80/tcp']", "ports: [{target: 80, published: '8080'}]", {"ports": [{"target": 80, "published": "8080"}]}),
    ("ports: ['127.0.0.1:8080:80']", "ports: ['8080:80']", {"ports": ["127.0.0.1:8080:80", "8080:80"]}),
    ("expose: [80]", "expose: ['80', 81]", {"expose": ["80", 81]}),
    ("depends_on: [a]", "depends_on: {b: {required: false}}", {"depends_on": {"a": {}, "b": {"required": False}}}),
    ("networks: [a]", "networks: {b: }", {"networks": {"a": {}, "b": None}}),
    ("env_file: a.env", "env_file: [{path: b.env}]", {"env_file": ["a.env", {"path": "b.env"}]}),
    ("tmpfs: /run", "tmpfs: /tmp", {"tmpfs": ["/run", "/tmp"]}),
    ("build: .", "build: {target: run}", {"build": {"context": ".", "target": "run"}}),
    (
        "logging: {driver: local, options: {a: b}}",
        "logging: {options: {c: d}}",
        {"logging": {"driver": "local", "options": {"a": "b", "c": "d"}}},
    ),
    ("logging: {driver: local, options: {a: b}}", "logging: {driver: none}", {"logging": {"driver": "none"}}),
    ("x-sluice: {routes: [{host: a}], init: true}", "x-sluice: {replicas: 2}",
     {"x-sluice": {"routes": [{"host": "a"}], "init": True, "replicas": 2}}),
    ("ports: ['8080:80']", "ports: !reset []", {}),
    ("environment: {A: 1, B: 2}", "environment: {A: !reset null}", {"environment": {"B": 2}}),
    ("ports: ['8080:80']", "ports: !override ['8443:443']", {"ports": ["8443:443"]}),
    ("environment: {A: 1}", "environment: !override {B: 2}", {"environment": {"B": 2}}),
    ("ports: ['8080:80']", "ports: null", {"ports": ["8080:80"]}),
    ("environment: {A: 1}", "environment: ", {"environment": {"A": 1}}),
    ("environment: ", "environment: [A=1]", {"environment": {"A": "1"}}),
]  # fmt: skip


@pytest.mark.parametrize(("base", "over", "result"), RULES, ids=[f"{base} + {over}" for base, over, _ in RULES])
def test_later_file_is_merged_by_the_rules_of_compose(base: str, over: str, result: dict[str, Any]) -> None:
    assert web(base, over) == result


def test_top_level_keys_and_services_of_all_files_are_merged() -> None:
    files = (
        "name: shop\nservices:\n  web: {image: web:1}\nvolumes: {data: }",
        "services:\n  api: {image: api:1}\nvolumes: {data: {external: true}}",
        "services:\n  web: !reset\n  api: {scale: 2}\n",
    )
    assert plain(merged(*files)) == {
        "name": "shop", "services": {"api": {"image": "api:1", "scale": 2}}, "volumes": {"data": {"external": True}}
    }  # fmt: skip


def test_reset_of_a_single_file_removes_the_value_and_other_tags_are_refused() -> None:
    assert plain(parse("a: !reset []\nb: [1, !reset 2]\nc: !override {d: 1}", {})) == {"b": [1], "c": {"d": 1}}
    for value in ("[1]", "{a: 1}", "x"):
        with pytest.raises(ComposeError) as refused:
            parse(f"a: 1\nb: !append {value}", {})
        assert refused.value.findings == [ComposeFinding("b", 2, "the tag !append is not supported")]


@pytest.mark.parametrize(
    ("base", "over", "words"),
    [
        ("ports: ['80:80']", "ports: {a: b}", "is a mapping, but a list in base.yaml, line 3"),
        ("deploy: {replicas: 1}", "deploy: 5", "is a single value, but a mapping in base.yaml, line 3"),
        ("image: web", "image: [web]", "is a list, but a single value in base.yaml, line 3"),
    ],
)
def test_files_that_cannot_be_merged_are_refused_with_both_places(base: str, over: str, words: str) -> None:
    with pytest.raises(ComposeError) as refused:
        web(base, over)
    [finding] = refused.value.findings
    assert (finding.place, words in finding.message) == ("prod.yaml, line 3", True)


def test_error_in_a_merged_file_names_its_own_file_and_line() -> None:
    text = serialize(
        merged(
            "services:\n  web:\n    image: web:1\n    ports: ['8080:80']\n    cap_add: [X]",
            "# of production\nservices:\n\n  web:\n    user: ${NOPE}\n    privileged: true\n",
        )
    )
    with pytest.raises(ComposeError) as refused:
        read(text, ComposeOptions(project="shop"))
    found = {(finding.field, finding.place) for finding in refused.value.findings}
    assert found == {
        ("services.web.cap_add", "base.yaml, line 5"),
        ("services.web.user", "prod.yaml, line 5"),
        ("services.web.privileged", "prod.yaml, line 6"),
    }


@given(st.text(max_size=40))
def test_any_value_survives_the_serialization(text: str) -> None:
    node = Node(
        "", 1, {"a": Node("a", 1, [Node("a.0", 1, text, text, source="x.yaml")], source="x.yaml"), text: Node("", 1, 5, "5")}
    )
    again = parse(serialize(node), {})
    assert plain(again) == ({text: 5} if text == "a" else {"a": [text], text: 5})


def test_interpolated_dollar_is_not_interpolated_again() -> None:
    tree = merged("services: {web: {command: ['$MONEY', $$x], scale: $N}}", "services: {web: {image: a}}")
    again = plain(parse(serialize(tree), {"b": "never"}))
    assert again["services"]["web"] == {"command": ["a$b", "$x"], "scale": 3, "image": "a"}
