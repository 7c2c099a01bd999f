"""The Compose file as text: YAML as Compose reads it, variables, merges; and malicious files."""

from __future__ import annotations

from contextlib import suppress

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.compose.client_inputs import NeededFile, client_inputs_of
from services.compose.document import MAX_BYTES, ComposeError, parse
from services.compose.interpolation import interpolate, names
from services.compose.keys import SERVICE, TOP
from services.compose.reader import ComposeOptions, survey
from tests.support.compose_reading import reading, refused

HERE = {"TAG": "2", "EMPTY": "", "OTHER": "o"}


@pytest.mark.parametrize(
    ("text", "filled"),
    [
        ("a$$b", "a$b"), ("$TAG", "2"), ("${TAG}x", "2x"), ("a}b", "a}b"),
        ("${NOPE:-d}", "d"), ("${NOPE-d}", "d"), ("${EMPTY:-d}", "d"), ("${EMPTY-d}", ""), ("${NOPE:-}", ""),
        ("${TAG:+yes}", "yes"), ("${EMPTY:+yes}", ""), ("${EMPTY+yes}", "yes"), ("${NOPE+yes}", ""),
        ("${NOPE:-${OTHER}-${ALSO:-x}}!", "o-x!"), ("${TAG:?needed}", "2"), ("${EMPTY}", ""),
    ],
)  # fmt: skip
def test_variables_are_interpolated_by_rules_of_compose(text: str, filled: str) -> None:
    assert interpolate(text, HERE) == (filled, None)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("${NOPE}", "NOPE is not set"), ("$NOPE", "NOPE is not set"), ("${NOPE:?say it}", "say it"),
        ("${EMPTY:?}", "EMPTY is required"), ("${TAG", "not closed"), ("${TAG/x}", "not closed"), ("$", "write \"$$\""),
        ("${1}", "write \"$$\""), ("${A:-" * 9 + "x" + "}" * 9, "nested"),
    ],
)  # fmt: skip
def test_variable_that_cannot_be_interpolated_is_reported_with_cause(text: str, words: str) -> None:
    filled, trouble = interpolate(text, HERE)
    assert filled == text
    assert words in (trouble or "")


@given(st.text(alphabet="$${}:-+?AB_1 ", max_size=40))
def test_any_value_is_interpolated_or_refused(text: str) -> None:
    filled, trouble = interpolate(text, {"A": "a", "AB": "$B"})
    assert trouble is None or filled == text
    assert all(name.isidentifier() for name in names(text))


def test_file_is_read_as_yaml_1_2_with_merges_and_anchors() -> None:
    made = reading("""
        x-base: &base
          image: web
          environment: &env {A: 1, B: on}
        services:
          web: {<<: *base, command: [yes]}
          api:
            <<: [*base, {user: other, image: z}]
            image: api
            environment: {<<: *env, B: off}
        """)
    web, api = made.services
    assert (web.fields["image"], web.fields["command"], web.fields["environment"]) == ("web", ["yes"], {"A": "1", "B": "on"})
    assert (api.fields["image"], api.fields["user"], api.fields["environment"]) == ("api", "other", {"A": "1", "B": "off"})


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("services:\n  a: {image: x}\n  a: {image: y}", 3, "duplicate key"),
        ("services:\n\t- a", 2, "is not YAML"),
        ("[1, 2]", 1, "must be a mapping"),
        ("name: x", 1, "is missing"),
        ("services: [a]", 1, "is missing"),
        ("? [a]\n: b", 1, "a key that is not text"),
        ("services: &s\n  a: *s", 2, "contains itself"),
        ("a: {<<: 5}", 1, "must be a mapping, or a list of them"),
        ("a: " + "[" * 40 + "]" * 40, 1, "levels deep"),
        ("a: " + "[" * 5000, 1, "is not YAML"),
        ("a: " + "x" * MAX_BYTES, 1, "is larger than"),
    ],
)
def test_invalid_compose_file_is_refused_with_line(text: str, line: int, words: str) -> None:
    found = refused(text)
    assert [(each[1], words in each[2]) for each in found if words in each[2]] == [(line, True)]


def test_alias_and_variable_bombs_are_refused_at_once() -> None:
    bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n"
    bomb += "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12))
    assert "values, aliases counted" in refused(bomb)[0][2]
    long = {"V": "x" * 100_000}
    many = "services:\n  a:\n    image: x\n    command: [" + ", ".join(["$V"] * 100) + "]"
    assert "longer than" in refused(many, variables=long)[0][2]


_ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*SERVICE, "driver", "path", "$X"]), inner, max_size=4)
    ),
    max_leaves=15,
)


@given(
    st.dictionaries(st.sampled_from([*SERVICE]), _ANY, max_size=6),
    st.dictionaries(st.sampled_from([*TOP]), _ANY, max_size=3),
)
@settings(suppress_health_check=list(HealthCheck), deadline=None)
def test_any_combination_of_keys_is_read_or_refused_with_lines(keys: dict[str, object], top: dict[str, object]) -> None:
    text = yaml.safe_dump({**top, "services": {"web": keys}}, allow_unicode=True)
    try:
        _, findings = survey(text, ComposeOptions(project="shop"))
    except ComposeError as refusal:
        findings = refusal.findings
    assert all(1 <= finding.line <= text.count("\n") + 1 and finding.message for finding in findings)


@given(st.text(max_size=200))
def test_any_text_is_parsed_to_mapping_or_refused(text: str) -> None:
    with suppress(ComposeError):
        assert isinstance(parse(text, {}).value, dict)


def test_client_inputs_list_variables_and_files_that_file_needs() -> None:
    needs = client_inputs_of(
        "name: shop\nservices:\n  web:\n    image: 'web:${TAG:-$OTHER}'\n    env_file: ['${DIR}/a.env', {path: b.env, "
        "required: false}]\n    environment: [PLAIN=1, PASSED]\n  db: {environment: {ALSO: }, env_file: b.env}",
        {"DIR": "conf"},
    )
    assert needs.name == "shop"
    assert needs.variables == {"TAG", "OTHER", "DIR", "PASSED", "ALSO"}
    assert needs.files == {"conf/a.env": NeededFile(True, False), "b.env": NeededFile(True, False)}
