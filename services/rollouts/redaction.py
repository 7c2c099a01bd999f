"""Secrets kept out of what is shown: a spec's values whose names look secret, the passwords in its URLs, and both of them
in what an instance writes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

HIDDEN = "***"
SHORTEST = 8
"""Characters of a value that is looked for in logs: shorter ones are words as well. GitLab masks from this length on."""
_NAMED = frozenset({"environment", "labels", "headers", "options", "args"})
"""The parts of a spec that map names which people chose to values."""
_SECRET_NAME = re.compile(
    r"passw|passphrase|secret|token|credential|auth(?!or(?!i[sz]))|cookie|salt|api[_.-]?key|private[_.-]?key|access[_.-]?key"
    r"|connection[_.-]?string|(^|[_.-])(key|pwd|pass)$",
    re.I,
)
_IN_URL = re.compile(r"([a-z][a-z0-9+.-]{0,15}://[^/\s:@]*:)([^/\s@]+)@", re.I)
"""With a bound, so that a long word costs no more than its length; of a longer scheme the end matches."""


def redacted(part: Any, *, named: bool = False) -> Any:
    """A spec, or a part of one, with HIDDEN in place of every secret. `named`: `part` maps names that people chose."""
    if isinstance(part, Mapping):
        return {
            name: HIDDEN if named and _is_secret(name, value) else redacted(value, named=name in _NAMED)
            for name, value in part.items()
        }
    if isinstance(part, list):
        return [redacted(value) for value in part]
    return _IN_URL.sub(rf"\1{HIDDEN}@", part) if isinstance(part, str) else part


def placeholders(spec: Mapping[str, Any]) -> Iterator[str]:
    """The dotted names of the fields that hold what `redacted` leaves: no values that anybody can have meant."""
    for name, value, secret in _values(spec):
        if (secret and value == HIDDEN) or any(password == HIDDEN for _, password in _IN_URL.findall(value)):
            yield name


def mask_of(spec: Mapping[str, Any]) -> Callable[[str], str]:
    """Takes the spec's secrets of SHORTEST characters and more out of what its instances write. One of several lines, such
    as a private key, is looked for line by line."""
    found: set[str] = set()
    for _, value, secret in _values(spec):
        found.update(value.splitlines() if secret else (password for _, password in _IN_URL.findall(value)))
    longest_first = sorted((secret for secret in found if len(secret) >= SHORTEST), key=len, reverse=True)
    if not longest_first:
        return lambda text: text
    pattern = re.compile("|".join(map(re.escape, longest_first)))
    return lambda text: pattern.sub(HIDDEN, text)


def _values(part: Any, field: str = "", named: bool = False) -> Iterator[tuple[str, str, bool]]:
    """Every text and number of a spec: its dotted name, the text, and whether its name looks secret."""
    if isinstance(part, Mapping | list):
        for name, value in part.items() if isinstance(part, Mapping) else enumerate(part):
            inner = f"{field}.{name}" if field else str(name)
            if named and _is_secret(str(name), value):
                yield inner, str(value), True
            else:
                yield from _values(value, inner, name in _NAMED)
    elif isinstance(part, str):
        yield field, part, False


def _is_secret(name: str, value: Any) -> bool:
    return value is not None and not isinstance(value, Mapping | list) and _SECRET_NAME.search(name) is not None
