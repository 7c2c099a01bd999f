"""Foreign text as it may be printed: without what could steer a terminal or reorder what stands beside it."""

from __future__ import annotations

import re
from unicodedata import category

_SEQUENCES = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*+[ -/]*+[@-~]"  # CSI: colours, moves
    r"|(?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x9c\n]*+(?:\x07|\x1b\\|\x9c)?"  # OSC, DCS and their like
    r"|\x1b[ -/]*+[0-~]?"
)


def clean(text: str) -> str:
    """The text without escape sequences, C0 and C1 controls (newline and tab stay), and bidirectional or invisible marks."""
    if text.isprintable():
        return text
    return "".join(map(_printable, _SEQUENCES.sub("", text)))


def _printable(character: str) -> str:
    if character.isprintable() or character in "\n\t":
        return character
    return " " if category(character) in ("Zs", "Zl", "Zp") else ""
