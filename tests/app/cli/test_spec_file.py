"""The variables of a sluice.yaml, by the rules of Compose files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.app.cli.conftest import Sluice
from tests.support.api_stub import Stub


@pytest.fixture(autouse=True)
def _variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"DB_URL": "postgres://db", "N": "3", "OCTAL": "010", "ON": "true", "RATIO": "0.5"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("NOPE", raising=False)


def sent(stub: Stub) -> dict[str, Any]:
    return dict(stub.asked("POST", "/deployments")[-1].body)


def deploy(sluice: Sluice, text: str) -> None:
    Path("sluice.yaml").write_text(f"service: web\nimage: web:1\n{text}")
    result = sluice("deploy")
    assert result.exit_code == 0, result.stderr


@pytest.mark.parametrize(
    ("text", "field", "value"),
    [
        ("environment: {A: '${DB_URL}/x'}", "environment", {"A": "postgres://db/x"}),
        ("environment: {A: $DB_URL}", "environment", {"A": "postgres://db"}),
        ("environment: {A: 'a$$b', B: '$${DB_URL}'}", "environment", {"A": "a$b", "B": "${DB_URL}"}),
        ("environment: {A: '${NOPE:-d}', B: '${NOPE-}', C: '${NOPE+x}'}", "environment", {"A": "d", "B": "", "C": ""}),
        ("replicas: ${N}", "replicas", 3),
        ("environment: {A: $OCTAL, B: '${N}', C: $RATIO}", "environment", {"A": "010", "B": "3", "C": 0.5}),
        ("healthcheck: {disable: $ON}", "healthcheck", {"disable": True}),
        ("command: &a [x, '$$y']\nentrypoint: *a", "entrypoint", ["x", "$y"]),
        ("environment: {A: 1}  # costs $5", "environment", {"A": 1}),
    ],
)
def test_variable_of_a_spec_file_is_interpolated(stub: Stub, sluice: Sluice, text: str, field: str, value: Any) -> None:
    deploy(sluice, text)
    assert sent(stub)[field] == value


def test_variables_come_from_the_environment_before_the_env_file_beside(stub: Stub, sluice: Sluice) -> None:
    Path(".env").write_text("N=5\nFROM_FILE=2\n")
    deploy(sluice, "environment: {A: $FROM_FILE, B: $N}")
    assert sent(stub)["environment"] == {"A": 2, "B": 3}


def test_env_file_beside_is_not_read_if_the_file_has_no_variables(stub: Stub, sluice: Sluice) -> None:
    Path(".env").write_text("this is no env file\n")
    deploy(sluice, "environment: {A: 1}")
    assert sent(stub)["environment"] == {"A": 1}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("environment:\n  A: ${NOPE}", "sluice.yaml, line 4: environment.A: variable NOPE is not set"),
        ("command: [a, $NOPE]", "sluice.yaml, line 3: command[1]: variable NOPE is not set"),
        ("environment: {A: 5 $}", 'sluice.yaml, line 3: environment.A: has a "$" that starts no variable'),
        ("note: ${NOPE:?name the commit}", "variable NOPE is required: name the commit"),
        ("port: 80\nport: 81", "sluice.yaml, line 4: port: duplicate key"),
        ("environment: {A: 1, B: 2, A: 3}", "sluice.yaml, line 3: environment.A: duplicate key"),
    ],
)
def test_unset_variable_or_repeated_key_is_refused_with_its_line(stub: Stub, sluice: Sluice, text: str, words: str) -> None:
    Path("sluice.yaml").write_text(f"service: web\nimage: web:1\n{text}\n")
    result = sluice("deploy")
    assert (result.exit_code, stub.requests) == (2, [])
    assert words in result.stderr


def test_all_unset_variables_are_named_at_once(sluice: Sluice) -> None:
    Path("sluice.yaml").write_text("service: web\nimage: $NOPE\nuser: $NOPE_EITHER\n")
    stderr = sluice("deploy").stderr
    assert "line 2: image: variable NOPE is not set" in stderr
    assert "line 3: user: variable NOPE_EITHER is not set" in stderr
