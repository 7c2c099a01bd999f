"""Links between documents, and references to documents, lead to files of this repository."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import pytest

from tests.quality.files import ROOT, text_files

PLACES = ("README.md", "CONTRIBUTING.md", "SECURITY.md", "docs", "bench", "tests", "samples", "app", "services", "templates",
          "scripts", "migrations", "Makefile", "pyproject.toml")  # fmt: skip
LINK = re.compile(r"\[[^\]\[]*(?:\[[^\]]*\][^\]\[]*)*\]\(<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\)")
REFERENCE = re.compile(r"(?<![\w./*-])(?:[\w.-]+/)*[\w-]+\.md\b(?!\w)")
CODE = re.compile(r"^(```|~~~).*?^\1\s*$|^(?: {4}|\t).*$|`[^`\n]*`", re.MULTILINE | re.DOTALL)
STATIC = ROOT / "app" / "static"
FOREIGN = re.compile(r"https?://\S+")


def documents() -> list[Path]:
    """Return the Markdown files."""
    return [path for path in text_files(*PLACES) if path.suffix == ".md"]


def links(text: str) -> Iterator[str]:
    """Yield the targets of links to files and anchors, without those inside code."""
    for target in LINK.findall(CODE.sub("", text)):
        if not re.match(r"[a-z][a-z0-9+.-]*:", target):
            yield unquote(target)


def anchors(text: str) -> set[str]:
    """Return the anchors of a document's headings, as GitHub makes them, and its explicit ones."""
    found, seen = set(re.findall(r"<a (?:id|name)=\"([^\"]+)\"", text)), Counter[str]()
    plain = re.sub(r"^(```|~~~).*?^\1\s*$", "", text, flags=re.MULTILINE | re.DOTALL)
    for heading in re.findall(r"^#{1,6}\s+(.+?)\s*#*$", plain, re.MULTILINE):
        words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        slug = re.sub(r"[^\w\- ]", "", words.lower()).replace(" ", "-")
        found.add(f"{slug}-{seen[slug]}" if seen[slug] else slug)
        seen[slug] += 1
    return found


def leads_somewhere(path: Path, target: str) -> bool:
    """Return whether a link in `path` leads to a file of the repository, and to one of its anchors."""
    name, _, anchor = target.partition("#")
    file = (path.parent / name).resolve() if name else path
    if not file.is_relative_to(ROOT) or not file.exists():
        return False
    return not anchor or file.suffix != ".md" or anchor in anchors(file.read_text("utf-8"))


@pytest.mark.parametrize("path", documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_to_files_and_anchors_of_the_repository(path: Path) -> None:
    broken = [target for target in links(path.read_text("utf-8")) if not leads_somewhere(path, target)]
    assert not broken


def test_documents_that_are_named_exist() -> None:
    """A document is named by its path from the repository's top, docs/, app/static/ or the directory of the file."""
    missing = []
    for path in text_files(*PLACES):
        if path.parent == Path(__file__).parent:
            continue
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
            for name in REFERENCE.findall(FOREIGN.sub("", line)):
                if not any((place / name).exists() for place in (ROOT, ROOT / "docs", STATIC, path.parent)):
                    missing.append(f"{path.relative_to(ROOT)}:{number}: {name}")
    assert not missing
