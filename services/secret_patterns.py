"""Secrets that are recognised by their form alone.

They are passwords in URLs, tokens with a known prefix, JSON Web Tokens and PEM private keys. The prefix stays, so that a
mask is recognised when a client sends it back (`ghp_***`). Every pattern takes time linear in the text: its repetitions are
bounded or possessive, or begin where no repetition of the same kind can begin.
"""

from __future__ import annotations

import re

MASK = "***"
_USER_OF_URL = r"[a-z][a-z0-9+.-]{0,15}://[^/\s:]*+:"
_MORE = r"""[^/\s@"',]++"""
_IN_URL = re.compile(rf"({_USER_OF_URL})([^/\s@]++(?:@(?={_MORE}@){_MORE})*+)@", re.I)
"""A URL with a password. The scheme is bounded, so that a long word costs no more than its length.

Of a longer scheme, the end matches. Names and passwords may have an "@" that is not escaped.
"""
_TOKENS = {
    "gh[opsru]_": "[A-Za-z0-9]{16,}",
    "github_pat_": "[A-Za-z0-9_]{16,}",
    "glpat-": "[A-Za-z0-9_.-]{16,}",
    "xox[abeoprs]-": "[A-Za-z0-9-]{10,}",
    "(?:AKIA|ASIA)": "[A-Z0-9]{16}(?![A-Za-z0-9])",
    "sl_": "[A-Za-z0-9]{38}(?![A-Za-z0-9])",
    "[rs]k_(?:live|test)_": "[A-Za-z0-9]{16,}",
    "npm_": "[A-Za-z0-9]{30,}",
    "pypi-": "[A-Za-z0-9_-]{32,}",
    "eyJ": r"(?<![A-Za-z0-9_-]eyJ)[A-Za-z0-9_-]{10,}+\.[A-Za-z0-9_-]{4,}+\.[A-Za-z0-9_-]*+(?:\.[A-Za-z0-9_-]*+)*+",
}
"""Prefix → pattern of the rest, by which each issuer's tokens are recognised.

They cover GitHub, GitLab, Slack, AWS, Sluice, Stripe, npm, PyPI and JSON Web Tokens.
"""
_TOKEN = re.compile("(?<![A-Za-z0-9])(?:" + "|".join(f"(?:({prefix}){rest})" for prefix, rest in _TOKENS.items()) + ")")
_SIGNS = (
    "gho_", "ghp_", "ghs_", "ghr_", "ghu_", "github_pat_", "glpat-", "xox", "AKIA", "ASIA", "sl_", "k_live_", "k_test_",
    "npm_", "pypi-", "eyJ",
)  # fmt: skip
"""Strings of which every text with a token contains one.

They are searched first, since a plain search is many times faster than the pattern.
"""
_KEY_EDGE = r"[A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----"
_KEY = re.compile(rf"(-----BEGIN {_KEY_EDGE})(?:[^-]|-(?!----END )){{16,}}+(-----END {_KEY_EDGE})?")
_BEGIN = re.compile(rf"-----BEGIN {_KEY_EDGE}")
_BASE64 = re.compile(r"[A-Za-z0-9+/=]*+")
_KEY_HEADERS = ("Proc-Type:", "DEK-Info:", "Comment:", "Version:")
MAX_KEY_LINES = 256
"""Maximum lines of a key: a key of 16,384 bits has some 200."""
_LEFT_IN_URL = re.compile(rf"{_USER_OF_URL}\*\*\*@", re.I)
_LEFT = re.compile(rf"(?<![A-Za-z0-9])(?:{'|'.join(_TOKENS)})\*\*\*|-----BEGIN {_KEY_EDGE}\*\*\*")


def mask_known_secrets(text: str) -> str:
    """Return the text with MASK in place of each secret that is recognised by its form."""
    if "://" in text:
        text = _IN_URL.sub(rf"\1{MASK}@", text)
    if any(sign in text for sign in _SIGNS):
        text = _TOKEN.sub(lambda found: f"{found[found.lastindex or 0]}{MASK}", text)
    if "PRIVATE KEY" in text:
        text = _KEY.sub(lambda found: f"{found[1]}{MASK}{found[2] or ''}", text)
    return text


def has_masked_secret(text: str) -> bool:
    """Return whether the text has a mask that `mask_known_secrets` makes."""
    return MASK in text and (_LEFT_IN_URL.search(text) is not None or _LEFT.search(text) is not None)


def passwords(text: str) -> list[str]:
    """Return the passwords of the URLs in the text."""
    return [found[2] for found in _IN_URL.finditer(text)] if "://" in text else []


def key_lines(text: str) -> list[str]:
    """Return the lines of the private keys in the text, as a log may show them one by one."""
    return [line for found in _KEY.finditer(text) for line in found[0].splitlines()] if "PRIVATE KEY" in text else []


class KeyLines:
    """A detector of the lines of a log that belong to a private key whose first line has been seen."""

    def __init__(self) -> None:
        self._left = 0

    def covers(self, line: str) -> bool:
        """Return whether the line is material of a key. Call the method with each line, in order."""
        if self._left and ("-----END " in line or not _is_key_material(line)):
            self._left = 0
        elif self._left:
            self._left -= 1
            return True
        elif "PRIVATE KEY" in line and (begin := _BEGIN.search(line)) and "-----END " not in line[begin.end() :]:
            self._left = MAX_KEY_LINES
        return False


def _is_key_material(line: str) -> bool:
    """Return whether the line may be part of a key.

    Such a line is base64 (possibly a long word of it after a time or a level), blank, or a header of the key.
    """
    words = line.split()
    if not words or words[0] in _KEY_HEADERS:
        return True
    return (len(words) == 1 or len(words[-1]) >= 40) and _BASE64.fullmatch(words[-1]) is not None
