"""The only way to standard output and standard error: whatever is printed is cleaned here, and keeps the CLI's own styles.

A style is marked by a key that is new in every process, so that no foreign text can hold one.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import sys
from typing import Any, TextIO

from services.printable import clean

_CODES = {
    "bold": 1, "red": 31, "green": 32, "yellow": 33, "blue": 34, "magenta": 35, "cyan": 36,
    "bright_green": 92, "bright_yellow": 93, "bright_cyan": 96,
}  # fmt: skip
_MARK = f"\x1b{secrets.token_hex(8)}:"
_STYLE = re.compile(rf"{_MARK}(\d+(?:;\d+)*)m")


def styled(text: str, *styles: str) -> str:
    """The text in these styles (a colour, `bold`), to be printed by this module."""
    return f"{_MARK}{';'.join(str(_CODES[style]) for style in styles)}m{clean(text)}{_MARK}0m"


def rendered(text: str, *, colours: bool) -> str:
    """The text as a terminal takes it: cleaned, with the styles that `styled` gave it."""
    parts = _STYLE.split(text)
    return "".join(
        clean(part) if number % 2 == 0 else (f"\x1b[{part}m" if colours else "") for number, part in enumerate(parts)
    )


def echo(text: str, *, err: bool = False) -> None:
    """Print the text and a newline; in colours on a terminal, unless NO_COLOR says otherwise."""
    stream = sys.stderr if err else sys.stdout
    write(stream, rendered(text, colours=takes_colours(stream)) + "\n")


def echo_json(document: Any, *, indent: int | None = None) -> None:
    """Print the document as JSON in ASCII: every control character and every mark is escaped."""
    write(sys.stdout, json.dumps(document, indent=indent).replace("\x7f", "\\u007f") + "\n")


def takes_colours(stream: TextIO) -> bool:
    return stream.isatty() and not os.environ.get("NO_COLOR")


def write(stream: TextIO, text: str) -> None:
    """Text of this module's own making, at once. A character that the stream's encoding lacks is a question mark."""
    stream.write(text.encode(stream.encoding or "utf-8", "replace").decode(stream.encoding or "utf-8"))
    stream.flush()
