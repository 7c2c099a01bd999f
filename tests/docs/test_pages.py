"""The documentation's site: its nav has every page, and no page recommends a foreign package."""

from __future__ import annotations

import re

from tests.support.docker_cli import ROOT

PAGES = sorted((ROOT / "docs").glob("*.md"))
GENERATED = ("benchmarks", "contributing", "security-policy")
"""Pages that scripts/mkdocs_hooks.py makes of documents outside of docs/."""


def test_nav_of_the_site_has_every_page_once() -> None:
    nav = (ROOT / "mkdocs.yml").read_text("utf-8").partition("\nnav:\n")[2]
    assert sorted(re.findall(r"([\w-]+)\.md$", nav, re.MULTILINE)) == sorted([*GENERATED, *(page.stem for page in PAGES)])


def test_no_document_recommends_the_foreign_package_of_the_same_name() -> None:
    """On PyPI the name `sluice` belongs to another project."""
    text = "\n".join(page.read_text("utf-8") for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *PAGES))
    assert not re.findall(r"(?:pip|pipx|uv|uvx)(?: tool)?(?: install| run)? +sluice\b", text)
