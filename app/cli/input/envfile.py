"""Parsers of `.env` files (quotes, comments, `export`, CRLF, variables), and of raw ones."""

from __future__ import annotations

import io
import os
import re
from collections import ChainMap
from pathlib import Path

from dotenv.parser import Binding, parse_stream

from app.cli.errors import usage
from app.cli.input.variables import VARIABLE
from services.compose.interpolation import interpolate

_ESCAPED_DOLLAR = re.compile(r"\\\$")
_LITERAL = "For a literal $ write $$, or put the value into single quotes."


def read_env_file(path: Path, *, complete: bool = False) -> dict[str, str]:
    """Return the file's variables as Compose reads them.

    Unlike in Compose, an unset variable in a value is refused. `NAME` alone takes its value from the environment; if it
    has none there, it is omitted, or refused if `complete`. Raises CliError with the line's number but never its content,
    which may be a secret.
    """
    values: dict[str, str] = {}
    for binding in parse_stream(io.StringIO(_text(path), newline=None)):
        name = binding.key
        if binding.error or (name is not None and not VARIABLE.fullmatch(name)):
            raise usage(f"{path}, line {_line(binding)}: not NAME=value")
        if name is None:
            continue
        value, sound = _value(binding, values)
        if not sound:
            raise usage(f"{path}, line {_line(binding)}: {name} has a $ that is not a variable which is set", _LITERAL)
        if value is not None:
            values[name] = value
        elif complete:
            raise usage(f"{path}, line {_line(binding)}: {name} is not set in this environment", f"Write {name}=value.")
    return values


def read_raw_env_file(path: Path) -> dict[str, str]:
    """Return the variables of a file with `format: raw`.

    Each value is its line's text after the first `=`. Lines that are empty or begin with `#` are skipped; `NAME` alone as
    in `read_env_file`. Raises CliError.
    """
    values: dict[str, str] = {}
    for number, line in enumerate(_text(path).split("\n"), 1):
        name, given, value = line.removesuffix("\r").lstrip().partition("=")
        if not line.strip() or name.startswith("#"):
            continue
        if not VARIABLE.fullmatch(name) or re.search(r"\s", name):
            raise usage(f"{path}, line {number}: not NAME=value")
        if given:
            values[name] = value
        elif name in os.environ:
            values[name] = os.environ[name]
    return values


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise usage(f"{path} cannot be read: {error}") from error


def _value(binding: Binding, before: dict[str, str]) -> tuple[str | None, bool]:
    """Return the variable's value, and whether it could be interpolated; single quotes are literal."""
    if binding.value is None:
        return os.environ.get(binding.key or ""), True
    if "$" not in binding.value or binding.original.string.partition("=")[2].lstrip().startswith("'"):
        return binding.value, True
    value, trouble = interpolate(_ESCAPED_DOLLAR.sub("$$", binding.value), ChainMap(before, dict(os.environ)))
    return value, trouble is None


def _line(binding: Binding) -> int:
    """Return the binding's line; the parser counts blank lines before a binding as part of it."""
    text = binding.original.string
    return binding.original.line + text[: len(text) - len(text.lstrip())].count("\n")
