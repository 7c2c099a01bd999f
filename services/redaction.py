"""Secrets of a spec: values with secret names, and text with a secret's form (secret_patterns.py)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from services.secret_patterns import MASK, has_masked_secret, key_lines, mask_known_secrets, passwords

SHORTEST = 4
"""Minimum number of characters of a value that is masked in logs."""
_FLAGS = frozenset({"true", "false", "none", "null"})
"""Values of settings such as AUTH=true, whose names only look secret."""
_KEY_EDGES = ("-----BEGIN ", "-----END ")
"""Lines that are no secret, but show that the lines of a key follow."""
_NAMED = frozenset({"environment", "labels", "headers", "options", "args"})
"""Parts of a spec that map names chosen by users to values."""
_SECRET_NAME = re.compile(
    r"passw|passphrase|secret|token|credential|auth(?!or(?!i[sz]))|cookie|salt|api[_.-]?key|private[_.-]?key|access[_.-]?key"
    r"|connection[_.-]?string|(^|[_.-])(key|pwd|pass)$",
    re.I,
)


def redacted(part: Any, *, named: bool = False) -> Any:
    """Return a spec, or a part of one, with MASK in place of every secret.

    `named` says that `part` maps names chosen by users to values.
    """
    if isinstance(part, Mapping):
        return {
            name: MASK if named and _is_secret(name, value) else redacted(value, named=name in _NAMED)
            for name, value in part.items()
        }
    if isinstance(part, list):
        return [redacted(value) for value in part]
    return mask_known_secrets(part) if isinstance(part, str) else part


def masked_fields(spec: Mapping[str, Any]) -> Iterator[str]:
    """Yield the dotted names of fields whose values are masks of `redacted`: no caller means such a value."""
    for name, value, secret in _values(spec):
        if value == MASK if secret else has_masked_secret(value):
            yield name


def secrets_in(spec: Mapping[str, Any]) -> list[str]:
    r"""Return the texts to mask in the logs of the spec's instances, longest first.

    Only texts of at least SHORTEST characters are returned. A value of several lines, such as a private key, is split into
    its lines; so is a value whose line ends are written "\n".
    """
    found: set[str] = set()
    for _, value, secret in _values(spec):
        for text in [value] if secret else [*passwords(value), *key_lines(value)]:
            found.update(text.splitlines())
            if "\\n" in text:
                found.update(text.split("\\n"))
    retained = [
        text for text in found if len(text) >= SHORTEST and text.lower() not in _FLAGS and not text.startswith(_KEY_EDGES)
    ]
    return sorted(retained, key=lambda text: (-len(text), text))


def _values(part: Any, field: str = "", named: bool = False) -> Iterator[tuple[str, str, bool]]:
    """Yield each text of a spec with its dotted name, and whether the name looks secret.

    Numbers are included if their name looks secret.
    """
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
