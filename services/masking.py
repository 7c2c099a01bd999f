"""Masking of secrets in logs: the secrets of a spec, and all text with a secret's form."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from ahocorasick_rs import AhoCorasick, Implementation, MatchKind

from services.redaction import secrets_in
from services.secret_shapes import MASK, KeyLines, hide

MAX_SECRETS = 10_000
MAX_CHARACTERS = 512 * 1024
"""Maximum characters of all secrets of a spec together. A deployment with more is refused.

The secrets are kept in memory while logs are read.
"""

MAX_LINE = 64 * 1024
"""Maximum characters of a line; the rest is cut off.

No other thread runs while a line is searched for forms of secrets.
"""


class Mask:
    """A mask for texts. Its time is linear in their length and independent of the number of secrets."""

    def __init__(self, secrets: tuple[str, ...]) -> None:
        # The other implementations take seconds to build from one long secret.
        self._secrets = (
            AhoCorasick(
                secrets, MatchKind.LeftmostLongest, store_patterns=False, implementation=Implementation.NoncontiguousNFA
            )
            if secrets
            else None
        )

    def text(self, text: str) -> str:
        """Mask a whole text of several lines."""
        return "\n".join(map(self.lines(), text.split("\n")))

    def lines(self) -> Callable[[str], str]:
        """Return a function that masks the lines of one log. The lines must come in order.

        The order matters because a private key spans several lines.
        """
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
    """Return the mask for logs of instances of this spec.

    It takes milliseconds for a large spec, so call the function in a thread.
    """
    return _mask(tuple(secrets_in(spec)))


def too_many_secrets(spec: Mapping[str, Any]) -> str | None:
    """Return why the spec has more secrets than Sluice can mask in logs, or None."""
    secrets = secrets_in(spec)
    if len(secrets) <= MAX_SECRETS and sum(map(len, secrets)) <= MAX_CHARACTERS:
        return None
    return (
        f"has too many secrets to mask in logs: at most {MAX_SECRETS} lines and {MAX_CHARACTERS // 1024} KiB; "
        "mount a file instead"
    )


@lru_cache(maxsize=8)
def _mask(secrets: tuple[str, ...]) -> Mask:
    return Mask(secrets)
