"""Parser of `.env` files: quotes, spaces, comments, `export`, CRLF, and `${NAME}` of earlier lines."""

from __future__ import annotations

import os
from pathlib import Path

from dotenv.parser import Binding, parse_stream
from dotenv.variables import parse_variables

from app.cli.errors import usage
from app.cli.input.specfile import VARIABLE


def read_env_file(path: Path) -> dict[str, str]:
    """Return the file's variables as Compose reads them.

    `NAME` alone takes its value from the environment, if it has one there. Raises CliError with the line's number
    but never its content, which may be a secret.
    """
    values: dict[str, str] = {}
    try:
        with path.open(encoding="utf-8") as lines:
            bindings = list(parse_stream(lines))
    except (OSError, UnicodeDecodeError) as error:
        raise usage(f"{path} cannot be read: {error}") from error
    for binding in bindings:
        name = binding.key
        if binding.error or (name is not None and not VARIABLE.fullmatch(name)):
            raise usage(f"{path}, line {_line(binding)}: not NAME=value")
        if name is None:
            continue
        value = _value(binding, values)
        if value is not None:
            values[name] = value
    return values


def _value(binding: Binding, before: dict[str, str]) -> str | None:
    """Return the variable's value; text in single quotes is taken literally."""
    if binding.value is None:
        return os.environ.get(binding.key or "")
    if binding.original.string.partition("=")[2].lstrip().startswith("'"):
        return binding.value
    known = {**os.environ, **before}
    return "".join(atom.resolve(known) for atom in parse_variables(binding.value))


def _line(binding: Binding) -> int:
    """Return the binding's line; the parser counts blank lines before a binding as part of it."""
    text = binding.original.string
    return binding.original.line + text[: len(text) - len(text.lstrip())].count("\n")
