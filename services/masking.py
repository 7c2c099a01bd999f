"""Masking of secrets in logs: the secrets of a spec, and all text with a secret's form."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from ahocorasick_rs import AhoCorasick, Implementation, MatchKind

from services.redaction import secrets_in
from services.secret_patterns import MASK, KeyLines, mask_known_secrets

MAX_SECRETS = 10_000
MAX_CHARACTERS = 512 * 1024
"""Maximum characters of all secrets of a spec together. A deployment with more is refused.

The secrets are kept in memory while logs are read.
"""

MAX_LINE = 64 * 1024
"""Maximum characters of a line; the rest is cut off.

No other thread runs while a line is searched for forms of secrets.
"""


_SURE_LENGTH, _SURE_WITH_DIGIT = 12, 8
"""Characters from which a secret is no common word, and is masked wherever it occurs: without a digit, and with one."""
_BEFORE_VALUE = re.compile(r"""(?:[=:] ?|["'`])\Z""")


class Mask:
    """A mask for texts. Its time is linear in their length and independent of the number of secrets.

    A password may be a word that logs contain anyway, such as "postgres". So a short secret is masked only as a whole word,
    and without a digit only in the place of a value: after "=", ":" or a quote, or before "@".
    """

    def __init__(self, secrets: tuple[str, ...]) -> None:
        sure = tuple(secret for secret in secrets if _is_sure(secret))
        words = tuple(secret for secret in secrets if not _is_sure(secret))
        self._sure = _automaton(sure, MatchKind.LeftmostLongest) if sure else None
        self._words = _automaton(words, MatchKind.Standard) if words else None

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
            known = self._without_words(self._without_sure(line))
            return mask_known_secrets(known if len(known) <= MAX_LINE else f"{known[:MAX_LINE]}…")

        return masked

    def _without_sure(self, line: str) -> str:
        found = self._sure.find_matches_as_indexes(line) if self._sure is not None else []
        return _replace(line, [(begin, end) for _, begin, end in found])

    def _without_words(self, line: str) -> str:
        """Mask the short secrets.

        Their matches may overlap, since one may be in the place of a value where another is not.
        """
        found = self._words.find_matches_as_indexes(line, overlapping=True) if self._words is not None else []
        return _replace(line, sorted((begin, end) for _, begin, end in found if _stands_as_secret(line, begin, end)))


def _is_sure(secret: str) -> bool:
    return len(secret) >= (_SURE_WITH_DIGIT if _has_digit(secret) else _SURE_LENGTH)


def _has_digit(text: str) -> bool:
    return any(char.isdigit() for char in text)


def _automaton(secrets: tuple[str, ...], kind: MatchKind) -> AhoCorasick:
    # The other implementations take seconds to build from one long secret.
    return AhoCorasick(secrets, kind, store_patterns=False, implementation=Implementation.NoncontiguousNFA)


def _stands_as_secret(line: str, begin: int, end: int) -> bool:
    before, after = line[max(begin - 2, 0) : begin], line[end : end + 1]
    if before[-1:].isalnum() or after.isalnum():
        return False
    return after == "@" or _BEFORE_VALUE.search(before) is not None or _has_digit(line[begin:end])


def _replace(line: str, spans: list[tuple[int, int]]) -> str:
    """Return the line with MASK in place of the spans, which are in order and may overlap."""
    parts, shown = [], 0
    for begin, end in spans:
        if begin >= shown:
            parts += [line[shown:begin], MASK]
        shown = max(shown, end)
    return "".join([*parts, line[shown:]]) if parts else line


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
