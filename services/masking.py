"""Secrets kept out of logs: those of a spec, wherever they stand, and whatever has a secret's form."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from ahocorasick_rs import AhoCorasick, Implementation, MatchKind

from services.redaction import secrets_in
from services.secret_shapes import MASK, KeyLines, hide

MAX_SECRETS = 10_000
MAX_CHARACTERS = 512 * 1024
"""Of all secrets of a spec together, which a deployment may not exceed: they are kept in memory while logs are read."""

MAX_LINE = 64 * 1024
"""Characters of a line; the rest is left out, since no other thread runs while a line is searched for forms of secrets."""


class Mask:
    """Masks texts in time linear in their length, whatever the number of secrets."""

    def __init__(self, secrets: tuple[str, ...]) -> None:
        # The other implementations take seconds to be built from one long secret.
        self._secrets = (
            AhoCorasick(
                secrets, MatchKind.LeftmostLongest, store_patterns=False, implementation=Implementation.NoncontiguousNFA
            )
            if secrets
            else None
        )

    def text(self, text: str) -> str:
        """A whole text of many lines."""
        return "\n".join(map(self.lines(), text.split("\n")))

    def lines(self) -> Callable[[str], str]:
        """Masks the lines of one log, which must come in order: a private key spans several."""
        key = KeyLines()

        def masked(line: str) -> str:
            if key.covers(line):
                return MASK
            known = self._without_secrets(line)
            return hide(known if len(known) <= MAX_LINE else f"{known[:MAX_LINE]}…")

        return masked

    def _without_secrets(self, line: str) -> str:
        found = self._secrets.find_matches_as_indexes(line) if self._secrets is not None else []
        if not found:
            return line
        parts, shown = [], 0
        for _, begin, end in found:
            parts += [line[shown:begin], MASK]
            shown = end
        return "".join([*parts, line[shown:]])


def log_mask(spec: Mapping[str, Any]) -> Mask:
    """The mask for what instances of this spec write. Takes milliseconds for a large spec: call it in a thread."""
    return _mask(tuple(secrets_in(spec)))


def too_many_secrets(spec: Mapping[str, Any]) -> str | None:
    """Why the spec's secrets are more than Sluice can keep out of logs."""
    secrets = secrets_in(spec)
    if len(secrets) <= MAX_SECRETS and sum(map(len, secrets)) <= MAX_CHARACTERS:
        return None
    return (
        f"has more secrets than can be kept out of logs: {MAX_SECRETS} lines and {MAX_CHARACTERS // 1024} KiB are allowed; "
        "mount a file instead"
    )


@lru_cache(maxsize=8)
def _mask(secrets: tuple[str, ...]) -> Mask:
    return Mask(secrets)
