"""Counts phrases that are no plain technical English; `python -m tests.quality.phrases` writes phrases.txt.

Counted are code, comments, documents and messages alike. CONTRIBUTING.md, "Language", has the rules.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from tests.quality.files import ROOT, text_files

HELD = Path(__file__).with_name("phrases.txt")
AREAS = {
    "code": ("app", "services", "templates"),
    "bench": ("bench",),
    "samples": ("samples",),
    "scripts": ("scripts", "Makefile"),
    "docs": ("README.md", "CONTRIBUTING.md", "SECURITY.md", "docs"),
    "tests": ("tests",),
}
"""Area → its places, relative to the repository's top."""
_BANNED = (
    "whoever",
    "anew",
    "of late",
    "in its hands",
    "by now",
    "so many",
    "somebody",
    "nobody",
    "is told",
    "goes on",
    "fares",
)
PHRASES = re.compile("|".join(rf"\b[{phrase[0].upper()}{phrase[0]}]{phrase[1:]}\b" for phrase in _BANNED))
ACCOUNT = re.compile(r"(?:USER|owner) nobody")
"""The UNIX account of that name."""


def occurrences(area: str) -> list[str]:
    """Return `file:line: phrase` for every phrase in the area."""
    found = []
    for path in text_files(*AREAS[area]):
        if path.parent == HELD.parent:
            continue
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
            found += [f"{path.relative_to(ROOT)}:{number}: {match[0]}" for match in PHRASES.finditer(ACCOUNT.sub("", line))]
    return found


def held() -> dict[str, int]:
    """Return the counts of phrases.txt by area."""
    return {area: int(count) for area, count in (line.split() for line in HELD.read_text().splitlines())}


def main() -> None:
    """Write the present counts. Raises SystemExit if one has risen."""
    before, now = held() if HELD.exists() else {}, {area: len(occurrences(area)) for area in AREAS}
    risen = [area for area in AREAS if now[area] > before.get(area, now[area])]
    if risen:
        sys.exit(f"more banned phrases than before in: {', '.join(risen)}")
    HELD.write_text("".join(f"{area} {count}\n" for area, count in now.items()))


if __name__ == "__main__":
    main()
