"""API tokens: creation and verification.

Only a token's HMAC is stored. Its key is a file of the data directory.
"""

from __future__ import annotations

import hmac
import os
import secrets
import string
import zlib
from pathlib import Path

PREFIX = "sl_"
SCOPES = ("read", "deploy", "write", "admin")
"""Scopes; each includes those before it."""
_ALPHABET = string.digits + string.ascii_letters
_RANDOM, _CHECK = 32, 6
KEY_FILE = "token.key"


def new_token() -> str:
    """Return a new token: `sl_`, 190 random bits, and a checksum.

    The checksum detects a mistyped token without a query of the store.
    """
    body = "".join(secrets.choice(_ALPHABET) for _ in range(_RANDOM))
    return PREFIX + body + _checksum(body)


def well_formed(token: str) -> bool:
    """Return True if the text has the form and the checksum of a token."""
    body, check = token[len(PREFIX) : -_CHECK], token[-_CHECK:]
    right_shape = token.startswith(PREFIX) and len(body) == _RANDOM and token.isascii() and token[len(PREFIX) :].isalnum()
    return right_shape and hmac.compare_digest(check, _checksum(body))


def scope_includes(scope: str, needed: str) -> bool:
    """Return True if `scope` allows everything that `needed` allows."""
    return SCOPES.index(scope) >= SCOPES.index(needed)


class TokenKey:
    """The secret key of this Sluice's digests."""

    def __init__(self, secret: bytes, *, is_new: bool = False) -> None:
        self._secret = secret
        self.is_new = is_new

    @classmethod
    def of(cls, data: Path) -> TokenKey:
        """Read the data directory's key, or create it at the first start. Raises OSError if that fails."""
        path = data / KEY_FILE
        is_new = not path.exists()
        if is_new:
            write_secret(path, secrets.token_bytes(32))
        return cls(path.read_bytes(), is_new=is_new)

    def digest(self, secret: str) -> str:
        """Return the HMAC-SHA256 of a token, a link's code or a session's cookie, in hexadecimal."""
        return hmac.digest(self._secret, secret.encode(), "sha256").hex()


def write_secret(path: Path, content: bytes) -> None:
    """Write a file that only its owner can read, atomically."""
    part = path.with_name(f".{path.name}.part")
    part.unlink(missing_ok=True)
    handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.write(handle, content)
        os.fsync(handle)
    finally:
        os.close(handle)
    part.replace(path)


def _checksum(body: str) -> str:
    number, text = zlib.crc32(body.encode()), ""
    for _ in range(_CHECK):
        number, digit = divmod(number, len(_ALPHABET))
        text = _ALPHABET[digit] + text
    return text
