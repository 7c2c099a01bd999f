"""First lines of docstrings are short."""

from __future__ import annotations

import ast

from tests.quality.files import ROOT, text_files

PLACES = ("app", "services", "bench", "migrations", "scripts")
MAX_LENGTH = 100
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def test_first_lines_of_docstrings_are_short() -> None:
    """Check the length; ruff checks the rest: imperative mood, full stop and blank lines (`D` in pyproject.toml)."""
    long = []
    for path in text_files(*PLACES):
        if path.suffix != ".py":
            continue
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            text = ast.get_docstring(node) if isinstance(node, DOCUMENTED) else None
            first = (text or "").split("\n")[0]
            if len(first) > MAX_LENGTH:
                long.append(f"{path.relative_to(ROOT)}: {len(first)} characters: {first}")
    assert not long
