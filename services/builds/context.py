"""Pure but for the file that it reads: is what a client sent the context of a build, and does it stay in its folder?"""

from __future__ import annotations

import gzip
import posixpath
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from services.rollouts.refusal import FieldError, Refusal

_GZIP = b"\x1f\x8b"
_LONGEST_HEADER = 1024 * 1024
"""Bytes of a name, or of other words about an entry: what a tar may make its reader hold in memory."""


def check_context(path: Path, dockerfile: str, limit: int) -> None:
    """Blocks. Refusal 422 `invalid_context` for what is no tar or tar.gz, is cut off, leads out of its folder, or has no
    Dockerfile; 413 `too_large` when it unpacks to more than `limit` bytes."""
    wanted, found, size = posixpath.normpath(dockerfile), False, 0
    links: set[str] = set()
    try:
        with _opened(path) as tar:
            while (entry := tar.next()) is not None:
                tar.members = []  # type: ignore[attr-defined]  # else all of them stay in memory
                _check(entry, links)
                size += entry.size
                if max(size, tar.offset) > limit:  # a tar may be all headers, or all holes
                    raise Refusal(413, "too_large", f"the context unpacks to more than {limit} bytes")
                found = found or (not entry.isdir() and posixpath.normpath(entry.name) == wanted)
    except (tarfile.TarError, EOFError, zlib.error, OSError, ValueError, OverflowError, RecursionError) as error:
        raise _invalid(f"is no whole tar or tar.gz: {error}") from None
    if not found:
        raise _invalid(f'has no "{wanted}"; ?dockerfile= names another one')


@contextmanager
def _opened(path: Path) -> Iterator[tarfile.TarFile]:
    with path.open("rb") as raw:
        packed = raw.read(2) == _GZIP
        raw.seek(0)
        with gzip.open(raw) if packed else raw as plain:
            sparing: Any = _Sparing(plain)
            with tarfile.open(fileobj=sparing, mode="r:") as tar:
                yield tar


class _Sparing:
    """A file that is never read in one large piece: contents are passed over by seeking."""

    def __init__(self, file: IO[bytes] | gzip.GzipFile) -> None:
        self._file = file
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= _LONGEST_HEADER:
            raise tarfile.ReadError("a header is too long")
        return self._file.read(size)


def _check(entry: tarfile.TarInfo, links: set[str]) -> None:
    """`links`: where the symbolic links before it are; it adds its own."""
    shown = entry.name[:200].encode(errors="replace").decode()
    if climbs(entry.name):
        raise _invalid(f'"{shown}" leads out of its folder')
    name = posixpath.normpath(entry.name)
    if links and any(name[:end] in links for end, char in enumerate(name) if char == "/"):
        raise _invalid(f'"{shown}" lies below a link')
    if entry.issym():
        links.add(name)
    if entry.issym() and climbs(posixpath.join(posixpath.dirname(entry.name), entry.linkname)):
        raise _invalid(f'"{shown}" is a link that leads out of its folder; name it in .dockerignore, or copy what it means')
    if entry.islnk() and climbs(entry.linkname):
        raise _invalid(f'"{shown}" is a link that leads out of its folder')
    if not (entry.isfile() or entry.isdir() or entry.issym() or entry.islnk()):
        raise _invalid(f'"{shown}" is neither file, directory nor link; name it in .dockerignore')


def climbs(name: str) -> bool:
    """Does the path lead out of the folder that it is told from? `..` is harmless where it stays inside."""
    return name.startswith("/") or posixpath.normpath(name).split("/")[0] == ".."


def _invalid(message: str) -> Refusal:
    return Refusal(422, "invalid_context", f"the context {message}"[:1000], [FieldError("body", message[:500])])
