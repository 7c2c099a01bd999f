"""Spec files: sluice.yaml is `service: NAME` and the fields of the spec (docs/cli.md)."""

from __future__ import annotations

import math
import os
import re
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from app.cli.errors import usage

DEFAULT_FILE = "sluice.yaml"
_DEEPEST = 32
_SERVICES = re.compile(r"""^(?:services|"services"|'services')\s*:|^\{\s*"?services"?\s*:""", re.MULTILINE)
VARIABLE = re.compile(r"[^=\x00-\x1f\x7f]+")
"""Pattern of a variable's name, as the spec accepts it."""


def read_text(path: str) -> str:
    """Return the file's text; `-` is stdin. Raises CliError."""
    try:
        return sys.stdin.read() if path == "-" else Path(path).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise usage(f"{path} cannot be read: {error}", f"`sluice init` writes a {DEFAULT_FILE}.") from error


def is_compose(path: str) -> bool:
    """Return whether the file is a Compose file (`services:`) and not a spec.

    Raises CliError if the file cannot be read.
    """
    return path != "-" and _SERVICES.search(read_text(path)) is not None


def read_spec(path: str) -> dict[str, Any]:
    """Return the request's body that the file describes; `-` is stdin.

    The result contains only JSON types; unknown fields are left for Sluice to refuse.
    Raises CliError with the line or the field.
    """
    text = read_text(path)
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise usage(f"{path} is not YAML: {_where(error)}") from error
    if not isinstance(value, dict):
        raise usage(
            f"{path}: not a mapping of fields", "The file starts with `service: NAME`; `sluice init` writes an example."
        )
    if "services" in value and "service" not in value:
        raise usage(f"{path} is a Compose file", "Deploy it with `sluice deploy -f FILE`, not from stdin.")
    return {str(name): plain(item, f"{path}: {name}") for name, item in value.items()}


def variable(text: str) -> dict[str, str]:
    """Parse an --env: `NAME=value`, or `NAME` for its value in this environment.

    Raises CliError without the value, which may be a secret.
    """
    name, given, value = text.partition("=")
    if not VARIABLE.fullmatch(name.strip()):
        raise usage(
            f"--env: invalid variable name {name.strip()!r}",
            "Use --env NAME=value; a name has one character at least, and no control characters.",
        )
    if given:
        return {name.strip(): value}
    return {name: here(name, "--env")}


def here(name: str, option: str) -> str:
    """Return the value that `option NAME` takes from this environment. Raises CliError if the variable is not set."""
    if name not in os.environ:
        raise usage(f"{option} {name}: {name} is not set in this environment", f"Set it, or use {option} {name}=value.")
    return os.environ[name]


def refuse_repeated(option: str, names: Iterable[str]) -> None:
    """Raise CliError if a name is given twice: only one of its values could take effect."""
    twice = next((name for name, count in Counter(names).items() if count > 1), None)
    if twice is not None:
        raise usage(f"{option} {twice} is given twice", "Remove one of them.")


def plain(value: Any, where: str, depth: int = 0) -> Any:
    """Return `value` with JSON types only.

    Raises CliError for a date, a name that is no text, a number that is not finite, and too deep nesting.
    """
    if depth > _DEEPEST:
        raise usage(f"{where}: nested too deeply")
    if isinstance(value, dict):
        for name in value:
            if not isinstance(name, str):
                raise usage(f"{where}: the name {name!r} is not text", f'Write it in quotes: "{name}".')
        return {name: plain(item, f"{where}.{name}", depth + 1) for name, item in value.items()}
    if isinstance(value, list):
        return [plain(item, f"{where}[{number}]", depth + 1) for number, item in enumerate(value)]
    if isinstance(value, float) and not math.isfinite(value):
        raise usage(f"{where}: {value} is not a finite number")
    if value is None or isinstance(value, str | bool | int | float):
        return value
    raise usage(f"{where}: YAML reads {str(value)!r} as a {type(value).__name__}", "Write it in quotes.")


def _where(error: yaml.YAMLError) -> str:
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
    return f"{problem} in line {mark.line + 1}, column {mark.column + 1}" if mark else str(error)
