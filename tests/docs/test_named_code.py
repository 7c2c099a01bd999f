"""The code that architecture, glossary and CONTRIBUTING name exists: files, tests, classes, functions and constants."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest

from tests.support.docker_cli import ROOT

CODE = ("app", "services", "migrations", "bench", "tests", "scripts", "templates")
SPAN = re.compile(r"`([^`\n]+)`")
FILE = re.compile(r"([\w./-]+\.(?:py|lua|sh|md|txt|toml))(?:::(\w+))?")
NAME = re.compile(r"(?:::)?([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)(?:\(.*\))?")
PATTERNS = {"_TIMEOUT", "_INTERVAL", "_SECONDS", "_MAX", "MAX_"}
"""Parts of names, from the rule for constants."""


@cache
def files() -> list[Path]:
    """Return the files of the code, without caches."""
    found = [
        path for place in CODE for path in (ROOT / place).rglob("*") if path.is_file() and "__pycache__" not in path.parts
    ]
    return [*found, *(path for path in ROOT.iterdir() if path.is_file()), *(ROOT / "docs").glob("*.md")]


@cache
def words() -> frozenset[str]:
    """Return all words of the code."""
    texts = (
        path.read_text("utf-8", "ignore") for path in files() if path.suffix in (".py", ".sh", ".toml", ".html", ".lua", "")
    )
    return frozenset(word for text in texts for word in re.findall(r"\w+", text))


def is_missing(span: str) -> bool:
    """Return whether `span` names a file, a test or an identifier that does not exist."""
    if named := FILE.fullmatch(span):
        path, test = named.groups()
        return not any(str(file).endswith(f"/{path}") and (not test or test in file.read_text()) for file in files())
    named = NAME.fullmatch(span)
    return named is not None and not words() >= set(named[1].split(".")) - PATTERNS


@pytest.mark.parametrize("document", ["docs/architecture.md", "docs/glossary.md", "CONTRIBUTING.md"])
def test_code_that_a_document_names_exists(document: str) -> None:
    spans = SPAN.findall((ROOT / document).read_text("utf-8"))
    assert len(spans) > 50
    assert [span for span in spans if is_missing(span)] == []


def test_missing_names_are_found() -> None:
    assert is_missing("services/nowhere/at_all.py") and is_missing("tests/docs/test_pages.py::test_of_nothing" + "_at_all")
    assert is_missing("Controller.no" + "_such_method") and not is_missing("Controller.enqueue")
