"""The documents: every page is in the site's nav, every link of a document leads to a file and a heading."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.docker_cli import ROOT

DOCS = ROOT / "docs"
DOCUMENTS = [
    *sorted(DOCS.glob("*.md")),
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "tests/README.md", "bench/README.md")),
    *sorted(ROOT.glob("samples/**/README.md")),
]
_FENCE = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([^)\s]+)\)")


def anchors_of(path: Path) -> set[str]:
    """Return the anchors of a document's headings, as GitHub and mkdocs make them."""
    headings = re.findall(r"^#+ (.+)$", _FENCE.sub("", path.read_text("utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def links_of(path: Path) -> list[str]:
    return _LINK.findall(_FENCE.sub("", path.read_text("utf-8")))


def test_nav_of_the_site_names_every_page_once() -> None:
    nav = (ROOT / "mkdocs.yml").read_text("utf-8").partition("\nnav:\n")[2]
    named = re.findall(r"([\w-]+\.md)$", nav, re.MULTILINE)
    outside = {"contributing.md", "security-policy.md", "benchmarks.md"}
    assert sorted(named) == sorted([*outside, *(path.name for path in DOCS.glob("*.md"))])


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_to_files_and_headings_of_the_repository(document: Path) -> None:
    for link in links_of(document):
        if re.match(r"[a-z]+:", link):
            continue
        file, _, anchor = link.partition("#")
        target = (document.parent / file).resolve() if file else document
        assert target.is_relative_to(ROOT) and target.exists(), f"{link}: there is no such file"
        assert not anchor or anchor in anchors_of(target), f"{link}: there is no such heading"


def test_no_document_recommends_the_package_of_another_project() -> None:
    text = "\n".join(document.read_text("utf-8") for document in DOCUMENTS)
    assert not re.search(r"(pip|pipx|uv|uvx)( tool)?( install| run)? +sluice\b", text)
