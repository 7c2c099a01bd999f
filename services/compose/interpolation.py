"""Interpolation of `$NAME` and `${NAME…}` by Compose's rules.

Unlike in Compose, an unset variable without a default is an error, not an empty text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

MAX_NESTED = 8
_NAME = r"[A-Za-z_][A-Za-z0-9_]*"
_START = re.compile(rf"\$(?:(?P<escaped>\$)|(?P<bare>{_NAME})|\{{(?P<braced>{_NAME})(?P<how>:?[-?+])?)")


class _Wrong(Exception):
    pass


def interpolate(text: str, variables: Mapping[str, str]) -> tuple[str, str | None]:
    """Return the interpolated text, and an error message or None."""
    try:
        filled, _ = _interpolate(text, 0, variables, 0)
    except _Wrong as wrong:
        return text, str(wrong)
    return filled, None


def names(text: str) -> set[str]:
    """Return the names of the variables in a text, including those in defaults."""
    return {match["bare"] or match["braced"] for match in _START.finditer(text) if not match["escaped"]}


def _interpolate(text: str, at: int, variables: Mapping[str, str], depth: int) -> tuple[str, int]:
    """Interpolate from `at` to the end, or to the brace that closes the current default.

    Return text and end.
    """
    if depth > MAX_NESTED:
        raise _Wrong(f"variables are nested more than {MAX_NESTED} deep")
    parts: list[str] = []
    while at < len(text) and not (depth and text[at] == "}"):
        if text[at] != "$":
            stops = (text.find("$", at), text.find("}", at) if depth else -1)
            end = min((stop for stop in stops if stop >= 0), default=len(text))
            parts.append(text[at:end])
            at = end
            continue
        match = _START.match(text, at)
        if match is None:
            raise _Wrong(
                'has a "$" that starts no variable; write "$$" for a literal "$"'
            )  # no excerpt, because it may be a secret
        at = match.end()
        if match["escaped"]:
            parts.append("$")
            continue
        word = ""
        if match["how"]:
            word, at = _interpolate(text, at, variables, depth + 1)
        if match["braced"]:
            if text[at : at + 1] != "}":
                raise _Wrong(f'has a "${{{match["braced"]}" that is not closed or not valid in Compose')
            at += 1
        parts.append(_value(match["bare"] or match["braced"], match["how"] or "", word, variables.get))
    return "".join(parts), at


def _value(name: str, how: str, word: str, get: Callable[[str], str | None]) -> str:
    """Return the value of a variable, or its default.

    `how` is the operator between name and word; with a colon, an empty value counts as unset.
    """
    value = get(name)
    if how.startswith(":") and value == "":
        value = None
    match how[-1:], value:
        case "-", None:
            return word
        case "+", _:
            return word if value is not None else ""
        case "?", None:
            raise _Wrong(f"variable {name} is required: {word or 'not set'}")
        case _, None:
            raise _Wrong(f"variable {name} is not set; set it, or write ${{{name}:-}} if it may be empty")
    return value or ""
