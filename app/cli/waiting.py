"""How long a command follows a deployment: --detach, --wait and --timeout."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated

import typer

from app.cli.errors import usage

_SPAN = re.compile(r"(?:(\d{1,6})h)?(?:(\d{1,6})m)?(?:(\d{1,6})s?)?")

Detach = Annotated[bool, typer.Option("--detach", "-d", help="Print the deployment's number and exit.")]
Wait = Annotated[bool, typer.Option("--wait", help="Follow to the end, the default; --wait=false is --detach.")]
Timeout = Annotated[
    str | None, typer.Option("--timeout", metavar="SPAN", help="Stop following after this time, such as 90s or 5m.")
]
WAIT_SPELLINGS = {"--wait=true": "--wait", "--wait=false": "--detach"}
"""Spellings of kubectl, for which a flag has a value."""


@dataclass(frozen=True)
class Waiting:
    """Whether a command follows its deployments, and for how many seconds at most; None: to the end."""

    detach: bool = False
    timeout: float | None = None


def waiting_of(*, detach: bool, wait: bool, timeout: str | None) -> Waiting:
    """Return the parsed options. Raises CliError if they contradict each other."""
    for option, given in (("--wait", wait), ("--timeout", timeout is not None)):
        if detach and given:
            raise usage(f"--detach and {option} exclude each other", "--detach follows no deployment.")
    return Waiting(detach, None if timeout is None else seconds_of(timeout))


def seconds_of(timeout: str) -> float | None:
    """Return the seconds of --timeout, None for 0, which is no limit. Raises CliError."""
    match = _SPAN.fullmatch(timeout)
    if not match or not timeout:
        raise usage(f"--timeout {timeout!r} is not a duration", "Use 90s, 5m, 1h30m, or a number of seconds.")
    hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return hours * 3600.0 + minutes * 60 + seconds or None
