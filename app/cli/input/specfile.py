"""What to deploy, from a file: sluice.yaml is `service: NAME` and the fields of the spec (docs/cli.md)."""

from __future__ import annotations

import math
import os
import re
import sys
from pathlib import Path
from typing import Any

import yaml

from app.cli.errors import usage

DEFAULT_FILE = "sluice.yaml"
_DEEPEST = 32
_SERVICES = re.compile(r"""^(?:services|"services"|'services')\s*:|^\{\s*"?services"?\s*:""", re.MULTILINE)
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_.\-]*")
"""A variable's name, as the spec takes it."""


def read_text(path: str) -> str:
    """`-` is stdin. Raises Trouble."""
    try:
        return sys.stdin.read() if path == "-" else Path(path).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise usage(f"{path} cannot be read: {error}", f"`sluice init` writes a {DEFAULT_FILE}.") from error


def is_compose(path: str) -> bool:
    """A file of services is Compose's, one of a service is ours. Raises Trouble when it cannot be read."""
    return path != "-" and _SERVICES.search(read_text(path)) is not None


def read_spec(path: str) -> dict[str, Any]:
    """The body that the file stands for; `-` is stdin. Only what JSON knows comes out; unknown fields are left to Sluice
    to refuse. Raises Trouble naming the line or the field."""
    text = read_text(path)
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise usage(f"{path} is not YAML: {_where(error)}") from error
    if not isinstance(value, dict):
        raise usage(
            f"{path}: is not a mapping of fields", "It begins with `service: NAME`; `sluice init` writes an example."
        )
    if "services" in value and "service" not in value:
        raise usage(f"{path} is a Compose file", "It goes with `sluice deploy -f FILE` alone, and not by stdin.")
    return {str(name): plain(item, f"{path}: {name}") for name, item in value.items()}


def variable(text: str) -> dict[str, str]:
    """An --env: `NAME=value`, or `NAME` for its value here (nothing when it has none). Raises Trouble, without the value."""
    name, given, value = text.partition("=")
    if not VARIABLE.fullmatch(name.strip()):
        raise usage(f"--env: {name.strip()!r} is not a variable's name", "It is --env NAME=value.")
    if given:
        return {name.strip(): value}
    return {name: os.environ[name]} if name in os.environ else {}


def plain(value: Any, where: str, depth: int = 0) -> Any:
    """`value` as JSON knows it. Raises Trouble for a date, a name that is no text, and what never ends."""
    if depth > _DEEPEST:
        raise usage(f"{where}: is nested too deeply")
    if isinstance(value, dict):
        for name in value:
            if not isinstance(name, str):
                raise usage(f"{where}: the name {name!r} is not text", f'Write it in quotes: "{name}".')
        return {name: plain(item, f"{where}.{name}", depth + 1) for name, item in value.items()}
    if isinstance(value, list):
        return [plain(item, f"{where}[{number}]", depth + 1) for number, item in enumerate(value)]
    if isinstance(value, float) and not math.isfinite(value):
        raise usage(f"{where}: {value} is not a number that can be sent")
    if value is None or isinstance(value, str | bool | int | float):
        return value
    raise usage(f"{where}: YAML reads {str(value)!r} as a {type(value).__name__}", "Write it in quotes.")


def _where(error: yaml.YAMLError) -> str:
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
    return f"{problem} in line {mark.line + 1}, column {mark.column + 1}" if mark else str(error)
