"""Hooks of mkdocs: pages for documents that are outside of docs/, and links to them."""

from __future__ import annotations

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parent.parent
OUTSIDE = {"CONTRIBUTING.md": "contributing", "SECURITY.md": "security-policy", "bench/README.md": "benchmarks"}
"""Document → name of its page."""
_LINK = re.compile(r"\]\(\.\./([^)#]+)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add a page for each document of OUTSIDE."""
    for document, page in OUTSIDE.items():
        text = (ROOT / document).read_text("utf-8").replace("](docs/", "](").replace("](../docs/", "](")
        files.append(File.generated(config, f"{page}.md", content=_LINK.sub(_to_page, text)))
    return files


def on_page_markdown(markdown: str, **_: object) -> str:
    """Point links to documents of OUTSIDE to their pages."""
    return _LINK.sub(_to_page, markdown)


def _to_page(found: re.Match[str]) -> str:
    page = OUTSIDE.get(found[1])
    return f"]({page}.md" if page else found[0]
