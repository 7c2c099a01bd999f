"""Output of a command: results on stdout, messages on stderr; one document with -o json or yaml.

app/cli/terminal.py cleans all printed text, so text is cleaned here only if its width is counted.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from enum import StrEnum
from typing import Any

from app.cli.errors import CliError
from app.cli.terminal import echo, echo_json, echo_yaml, styled
from services.printable import strip_control_characters

_COLOURS = {
    "serving": "green", "succeeded": "green", "ready": "cyan", "starting": "cyan", "creating": "cyan", "progressing": "cyan",
    "draining": "yellow", "stopping": "yellow", "paused": "yellow", "rolling_back": "yellow", "deploying": "cyan",
    "failed": "red", "down": "red", "unhealthy": "red", "rolled_back": "red", "rollback_failed": "red", "aborted": "red",
    "crash_looping": "red", "deployment_failed": "red",
}  # fmt: skip
_NARROWEST = 10


class Format(StrEnum):
    """Forms of the results, under kubectl's names."""

    JSON = "json"
    YAML = "yaml"
    WIDE = "wide"
    NAME = "name"


class Output:
    """Output of one command.

    `form`: None is text that fits the terminal. `quiet`: results in their shortest form, no messages.
    """

    def __init__(self, form: Format | None = None, *, quiet: bool = False) -> None:
        self._form = form
        self.quiet = quiet or form is Format.NAME

    @property
    def structured(self) -> bool:
        """Whether stdout is for programs: JSON or YAML, and nothing else."""
        return self._form in (Format.JSON, Format.YAML)

    @property
    def width(self) -> int | None:
        """The width that tables have to fit, None for any."""
        return shutil.get_terminal_size().columns if sys.stdout.isatty() and self._form is not Format.WIDE else None

    @property
    def is_live(self) -> bool:
        """Whether messages may move the cursor: stderr is a terminal that supports it."""
        return sys.stderr.isatty() and not self.quiet and os.environ.get("TERM") != "dumb"

    def result(self, document: Any, text: str, short: str | None = None) -> None:
        """Print the result: `document` for programs, `short` if quiet, otherwise `text`."""
        if self.structured:
            self._document(document)
            return
        line = text if short is None or not self.quiet else short
        if line:
            echo(line)

    def line(self, document: Any, text: str) -> None:
        """Print one of many results that arrive over time: one JSON document a line, or YAML documents."""
        match self._form:
            case Format.JSON:
                echo_json(document)
            case Format.YAML:
                echo_yaml(document, more=True)
            case _:
                echo(text)

    def say(self, text: str, colour: str | None = None) -> None:
        """Print a message on stderr, unless quiet."""
        if not self.quiet:
            echo(styled(text, colour) if colour else text, err=True)

    def error(self, error: CliError) -> None:
        """Print the error that ends the command."""
        echo(styled("error: ", "red", "bold") + error.message, err=True)
        if error.advice:
            echo(error.advice, err=True)
        if self.structured and error.document:
            self._document(error.document)

    def _document(self, document: Any) -> None:
        if self._form is Format.YAML:
            echo_yaml(document)
        else:
            echo_json(document, indent=2)


def columns(titles: Sequence[str], rows: Sequence[Sequence[Any]], width: int | None = None) -> str:
    """Format an aligned table; a cell that is a status gets the status's colour.

    A column without any value is omitted; in the others None is printed as a dash. To fit `width` the longest cells are
    shortened in the middle; if that is not enough, the last columns are omitted.
    """
    telling = [n for n in range(len(titles)) if not rows or any(row[n] not in (None, "") for row in rows)]
    cells = [[titles[n] for n in telling], *([_cell(row[n]) for n in telling] for row in rows)]
    widths = _fitting(list(zip(*cells, strict=True)), width)
    cells = [[_shortened(cell, width) for cell, width in zip(row, widths, strict=False)] for row in cells]
    lines = []
    for number, row in enumerate(cells):
        padded = [
            coloured(cell, cell.ljust(width)) if number else cell.ljust(width)
            for cell, width in zip(row, widths, strict=True)
        ]
        padded[-1] = coloured(row[-1], row[-1]) if number else row[-1]
        lines.append("  ".join(padded).rstrip())
    return "\n".join(lines)


def _fitting(stacks: Sequence[Sequence[str]], most: int | None) -> list[int]:
    """Return a width for each of the first columns, as many as fit into `most` with gaps of two spaces.

    The widest column is narrowed first. The first column is never shortened, because users type its values again; neither
    are cells with a colour.
    """
    widths = [max(map(len, stack)) for stack in stacks]
    if most is None:
        return widths
    retained = [max([_NARROWEST, *(len(cell) for cell in stack if cell in _COLOURS)]) for stack in stacks]
    least = [widths[0], *(min(width, floor) for width, floor in zip(widths[1:], retained[1:], strict=True))]
    while len(widths) > 1 and sum(least[: len(widths)]) + 2 * (len(widths) - 1) > most:
        widths.pop()
    while sum(widths) + 2 * (len(widths) - 1) > most and widths != least[: len(widths)]:
        widest = max(range(len(widths)), key=lambda n: (widths[n] > least[n], widths[n]))
        widths[widest] -= 1
    return widths


def _shortened(text: str, width: int) -> str:
    """Shorten the middle of a text; an image reference differs mostly at its end."""
    if len(text) <= width:
        return text
    end = (width - 1) * 2 // 3
    return f"{text[: width - 1 - end]}…{text[len(text) - end :]}"


def pairs(facts: Sequence[tuple[str, Any]]) -> str:
    """Format lines of `name  value`; those without a value are omitted.

    Further lines of a value are indented, so that no foreign text looks like another fact.
    """
    retained = [(name, value) for name, value in facts if value not in (None, "", [], {})]
    width = max((len(name) for name, _ in retained), default=0)
    further = "\n" + " " * (width + 2)
    shown = [(name, str(value).replace("\n", further)) for name, value in retained]
    return "\n".join(f"{name.ljust(width)}  {coloured(value, value)}" for name, value in shown)


def coloured(status: str, text: str) -> str:
    """Return `text` in the colour of `status`, unchanged if `status` has none."""
    return styled(text, _COLOURS[status]) if status in _COLOURS else text


def _cell(value: Any) -> str:
    return "-" if value in (None, "") else strip_control_characters(str(value)).replace("\n", " ")
