"""Variables that options name: `NAME=value`, or `NAME` for its value in this environment."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable

from app.cli.errors import usage

VARIABLE = re.compile(r"[^=\x00-\x1f\x7f]+")
"""Pattern of a variable's name, as the spec accepts it."""


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
    return {name.strip(): here(name.strip(), "--env")}


def here(name: str, option: str) -> str:
    """Return the value that `option NAME` takes from this environment. Raises CliError if it has none."""
    if name not in os.environ:
        raise usage(f"{option} {name}: {name} is not set in this environment", f"Set it, or use {option} {name}=value.")
    return os.environ[name]


def refuse_repeated(option: str, names: Iterable[str]) -> None:
    """Raise CliError if a name is given twice: only one of its values could take effect."""
    twice = next((name for name, count in Counter(names).items() if count > 1), None)
    if twice is not None:
        raise usage(f"{option} {twice} is given twice", "Remove one of them.")
