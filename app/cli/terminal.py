"""The only writer to stdout and stderr: cleans all printed text, and keeps the CLI's own styles.

A style is marked by a random key, new in every process, so that no foreign text can contain one.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import sys
from typing import Any, TextIO

from services.printable import strip_control_characters

_CODES = {
    "bold": 1, "red": 31, "green": 32, "yellow": 33, "blue": 34, "magenta": 35, "cyan": 36,
    "bright_green": 92, "bright_yellow": 93, "bright_cyan": 96,
}  # fmt: skip
_MARK = f"\x1b{secrets.token_hex(8)}:"
_STYLE = re.compile(rf"{_MARK}(\d+(?:;\d+)*)m")


def styled(text: str, *styles: str) -> str:
    """Mark the text with styles (a colour, `bold`), for printing by this module."""
    return f"{_MARK}{';'.join(str(_CODES[style]) for style in styles)}m{strip_control_characters(text)}{_MARK}0m"


def rendered(text: str, *, colours: bool) -> str:
    """Return the text for a terminal: cleaned, with the styles that `styled` marked."""
    parts = _STYLE.split(text)
    return "".join(
        strip_control_characters(part) if number % 2 == 0 else (f"\x1b[{part}m" if colours else "")
        for number, part in enumerate(parts)
    )


def echo(text: str, *, err: bool = False) -> None:
    """Print the text and a newline; in colours on a terminal, unless NO_COLOR is set."""
    stream = sys.stderr if err else sys.stdout
    write(stream, rendered(text, colours=takes_colours(stream)) + "\n")


def echo_json(document: Any, *, indent: int | None = None) -> None:
    """Print the document as JSON in ASCII: every control character and every style mark is escaped."""
    write(sys.stdout, json.dumps(document, indent=indent).replace("\x7f", "\\u007f") + "\n")


def echo_yaml(document: Any, *, more: bool = False) -> None:
    """Print a document as YAML in ASCII, control characters escaped; `more`: one of several documents."""
    import yaml  # takes a while to load, and is used by few commands

    text = yaml.safe_dump(document, sort_keys=False, allow_unicode=False)
    write(sys.stdout, f"---\n{text}" if more else text)


def takes_colours(stream: TextIO) -> bool:
    return stream.isatty() and not os.environ.get("NO_COLOR")


def write(stream: TextIO, text: str) -> None:
    """Write text made by this module, and flush it.

    A character that the stream's encoding lacks is printed as a question mark.
    """
    stream.write(text.encode(stream.encoding or "utf-8", "replace").decode(stream.encoding or "utf-8"))
    stream.flush()
