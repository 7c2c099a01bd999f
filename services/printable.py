"""Cleaning of untrusted text before printing it.

Characters that control a terminal or reorder adjacent text are removed.
"""

from __future__ import annotations

import re
from unicodedata import category

_SEQUENCES = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*+[ -/]*+[@-~]"  # CSI: colours, moves
    r"|(?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x9c\n]*+(?:\x07|\x1b\\|\x9c)?"  # OSC, DCS and their like
    r"|\x1b[ -/]*+[0-~]?"
)


def strip_control_characters(text: str) -> str:
    """Return the text without escape sequences, control characters and bidirectional or invisible marks.

    Newline and tab remain.
    """
    if text.isprintable():
        return text
    return "".join(map(_printable, _SEQUENCES.sub("", text)))


def _printable(character: str) -> str:
    if character.isprintable() or character in "\n\t":
        return character
    return " " if category(character) in ("Zs", "Zl", "Zp") else ""
