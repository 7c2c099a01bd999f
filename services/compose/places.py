"""Places in a merged Compose file: a comment on each line names its original file and line."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

HEADER = "# Merged from several files by sluice; the comment of a line is its file and line.\n"
_COMMENT = re.compile(r"  #@ (?P<source>[^\x00-\x1f\x7f]{1,200}):(?P<line>[0-9]{1,7})$")


class Place(NamedTuple):
    """A line of one of the merged files."""

    source: str
    line: int


def comment(place: Place) -> str:
    """Return the comment for the end of a line."""
    source = re.sub(r"[^ -~]", "?", place.source)[-200:]
    return f"  #@ {source}:{place.line}"


def places_of(text: str) -> Mapping[int, Place]:
    """Return the line's number in a merged file → its place; {} for any other file."""
    if not text.startswith(HEADER):
        return {}
    matches = ((number, _COMMENT.search(line)) for number, line in enumerate(text.split("\n"), 1))
    return {number: Place(match["source"], int(match["line"])) for number, match in matches if match}
