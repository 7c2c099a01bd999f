"""Text files of the repository that the quality tests read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
SUFFIXES = frozenset({".py", ".md", ".sh", ".html", ".js", ".css", ".lua", ".yaml", ".yml", ".toml", ".java", ".go", ".xml"})
NAMES = frozenset({"Dockerfile", "Makefile", "sluice"})
FOREIGN = frozenset({"vendor", "node_modules", "target", "__pycache__"})
"""Directories whose files were not written for this project, or were built."""


def text_files(*places: str) -> Iterator[Path]:
    """Yield the text files at `places`, which are relative to the repository's top, in a stable order."""
    for place in places:
        top = ROOT / place
        for path in sorted(top.rglob("*")) if top.is_dir() else [top]:
            known = path.suffix in SUFFIXES or path.name in NAMES
            if known and path.is_file() and not FOREIGN.intersection(path.relative_to(ROOT).parts):
                yield path
