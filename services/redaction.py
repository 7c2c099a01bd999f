"""Secrets of a spec: values whose names look secret, and what has a secret's form (services/secret_shapes.py)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from services.secret_shapes import MASK, has_hidden, hide, key_lines, passwords

SHORTEST = 8
"""Characters of a value that is looked for in logs: shorter ones are words as well. GitLab masks from this length on."""
_KEY_EDGES = ("-----BEGIN ", "-----END ")
"""They are no secret, and tell that a key's lines follow."""
_NAMED = frozenset({"environment", "labels", "headers", "options", "args"})
"""The parts of a spec that map names which people chose to values."""
_SECRET_NAME = re.compile(
    r"passw|passphrase|secret|token|credential|auth(?!or(?!i[sz]))|cookie|salt|api[_.-]?key|private[_.-]?key|access[_.-]?key"
    r"|connection[_.-]?string|(^|[_.-])(key|pwd|pass)$",
    re.I,
)


def redacted(part: Any, *, named: bool = False) -> Any:
    """A spec, or a part of one, with MASK in place of every secret. `named`: `part` maps names that people chose."""
    if isinstance(part, Mapping):
        return {
            name: MASK if named and _is_secret(name, value) else redacted(value, named=name in _NAMED)
            for name, value in part.items()
        }
    if isinstance(part, list):
        return [redacted(value) for value in part]
    return hide(part) if isinstance(part, str) else part


def masked_fields(spec: Mapping[str, Any]) -> Iterator[str]:
    """The dotted names of the fields that hold what `redacted` leaves: no values that anybody can have meant."""
    for name, value, secret in _values(spec):
        if value == MASK if secret else has_hidden(value):
            yield name


def secrets_in(spec: Mapping[str, Any]) -> list[str]:
    """What must not stand in the logs of the spec's instances, longest first; only what has SHORTEST characters or more.

    A value of several lines, such as a private key, is looked for line by line; so is one whose line ends are written "\\n".
    """
    found: set[str] = set()
    for _, value, secret in _values(spec):
        for text in [value] if secret else [*passwords(value), *key_lines(value)]:
            found.update(text.splitlines())
            if "\\n" in text:
                found.update(text.split("\\n"))
    retained = [text for text in found if len(text) >= SHORTEST and not text.startswith(_KEY_EDGES)]
    return sorted(retained, key=lambda text: (-len(text), text))


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
