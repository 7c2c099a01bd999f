"""Base images that the FROM lines of a Dockerfile name."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from services.builds.bases import bases_of, pin
from services.builds.dockerfile import DockerfileError


def references(text: str, args: Mapping[str, str] | None = None, target: str | None = None) -> list[str | None]:
    return [base.reference for base in bases_of(text, args or {}, target)]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("FROM debian:13\nRUN a\n", ["debian:13"]),
        ("from Registry:5000/a/b@sha256:ab\n", ["Registry:5000/a/b@sha256:ab"]),
        ("FROM scratch\n", [None]),
        ("FROM a AS one\nFROM b as Two\nFROM one\nFROM TWO\nFROM three\n", ["a", "b", None, None, "three"]),
        ("FROM \\\n # comment\n  a \\\n AS x\n", ["a"]),
        ("# escape=`\nFROM `\n a\n", ["a"]),
        ("\ufeffFROM a\r\nRUN b\r\n", ["a"]),
        ("FROM --platform=linux/amd64 a AS b\n", ["a"]),
        ('ARG A="x" B=2\nARG C=$A:${B}\nFROM $C\n', ["x:2"]),
        ("ARG A\nFROM ${A:-x}\n", ["x"]),
        ("ARG A=\nFROM x${A-y}\nFROM x${A:-y}\n", ["x", "xy"]),
        ("FROM ${A:-x}\nARG A=y\nFROM ${A:-x}\n", ["x", "x"]),
    ],
)
def test_base_references_are_found_with_variables_replaced(text: str, found: list[str | None]) -> None:
    assert references(text) == found


def test_build_argument_applies_only_if_declared() -> None:
    text = "ARG A=x\nFROM $A\nFROM ${B:-none}\n"
    assert references(text, {"A": "y", "B": "z"}) == ["y", "none"]


def test_stages_after_target_are_ignored() -> None:
    text = "FROM a AS one\nFROM b AS two\nFROM c\n"
    assert references(text, target="TWO") == ["a", "b"]
    assert references(text, target="0") == ["a"]
    assert references(text, target="unknown") == ["a", "b", "c"]


@pytest.mark.parametrize(
    "text",
    [
        "FROM $A\n",
        "FROM ${A:+x}\n",
        "FROM ${A:-$B}\n",
        "FROM 'a'\n",
        "FROM a b\n",
        "FROM\n RUN",
        'FROM --platform="a b" c\n',
        'ARG A="x\nFROM $A\n',
        "FROM a\nRUN <<'E\\'\nE\\\nFROM evil\n",
        "FROM a\nRUN <<'E\\'\nE\\\nFROM evil AS b\n",
        "FROM a\nRUN <<'E\\'\nE\\\nFROM --platform=\"a b\" evil\n",
    ],
)
def test_ambiguous_from_instruction_is_refused(text: str) -> None:
    with pytest.raises(DockerfileError, match=r"^line \d+: "):
        bases_of(text, {})


def test_python_import_in_run_step_is_no_base() -> None:
    assert references('FROM a\nRUN python -c "\\\nfrom os import path \\\n"\n') == ["a"]


def test_base_references_are_pinned_and_lines_keep_their_numbers() -> None:
    text = "ARG A=x\nFROM --platform=linux/amd64 \\\n  $A \\\n  AS One\nRUN a\nFROM one\nFROM scratch\nFROM y\n"
    pinned = pin(text, bases_of(text, {}), {"x": "sha256:1", "y": "sha256:2"})
    assert pinned.split("\n") == [
        "ARG A=x", "FROM --platform=linux/amd64 sha256:1 AS one", "", "", "RUN a", "FROM one", "FROM scratch",
        "FROM sha256:2", "",
    ]  # fmt: skip
