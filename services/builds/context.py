"""Build contexts: checked as uploaded, and repacked for the engine."""

from __future__ import annotations

import gzip
import posixpath
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from services.builds.bases import bases_of
from services.builds.dockerfile import MAX_DOCKERFILE_BYTES, DockerfileError, check_adds
from services.errors import FieldError, RequestError

_GZIP = b"\x1f\x8b"
_CHUNK = 128 * 1024
_MAX_HEADER_BYTES = 1024 * 1024
"""Maximum bytes of a name or other metadata of an entry, which a tar makes its reader hold in memory."""


def check_context(path: Path, dockerfile: str, limit: int) -> str:
    """Check an uploaded context and return the text of its Dockerfile. Blocks.

    Raises RequestError 422 `invalid_context` if the file is no tar or tar.gz, is truncated, leads out of its
    directory, or does not have exactly one plain Dockerfile. Raises RequestError 413 `too_large` if it unpacks to
    more than `limit` bytes.
    """
    dockerfile_path, size = posixpath.normpath(dockerfile), 0
    found: bytes | None = None
    links: set[str] = set()
    try:
        with _opened(path) as tar:
            for entry in _entries(tar):
                _check(entry, links)
                _check_place(entry, dockerfile_path, found is not None)
                _header(entry)
                size += entry.size
                if max(size, tar.offset) > limit:  # a tar may consist of headers only, or of holes only
                    raise RequestError(413, "too_large", f"the context unpacks to more than {limit} bytes")
                if entry.name == dockerfile_path:
                    found = b"".join(_content(tar, entry))
    except (tarfile.TarError, EOFError, zlib.error, OSError, ValueError, OverflowError, RecursionError) as error:
        raise _invalid(f"is not a complete tar or tar.gz: {error}") from None
    if found is None:
        raise _invalid(f'has no "{dockerfile_path}"; choose another one with ?dockerfile=')
    return found.decode(errors="surrogateescape")


def check_dockerfile(text: str, args: Mapping[str, str]) -> None:
    """Check a Dockerfile for an ADD of a remote source and a FROM that names no image.

    Raises RequestError 422 `invalid_context` that names the line.
    """
    try:
        check_adds(text)
        bases_of(text, args)
    except DockerfileError as error:
        printable = str(error).encode(errors="replace").decode()
        raise _invalid(f"has a Dockerfile that is refused: {printable}") from None


def packed(path: Path, dockerfile: str, text: str) -> Iterator[bytes]:
    """Yield the tar of a checked context with `text` as its Dockerfile. Blocks.

    Sluice writes all headers itself, so the engine cannot read an entry differently than the check did.
    """
    dockerfile_path = posixpath.normpath(dockerfile)
    with _opened(path) as tar:
        for entry in _entries(tar):
            written = text.encode(errors="surrogateescape") if entry.name == dockerfile_path else None
            if written is not None:
                entry.size = len(written)
            yield _header(entry)
            yield from [written] if written is not None else _content(tar, entry)
            yield bytes(-entry.size % tarfile.BLOCKSIZE)
    yield bytes(2 * tarfile.BLOCKSIZE)


def _entries(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """Yield the entries without any data that readers may ignore or not know.

    Entries are files, directories, links and those to refuse.
    """
    while (entry := tar.next()) is not None:
        tar.members = []  # type: ignore[attr-defined]  # otherwise all members stay in memory
        entry.name = posixpath.normpath(entry.name)
        entry.pax_headers = {}
        if entry.isfile():
            entry.type = tarfile.REGTYPE
        else:
            entry.size = 0
        yield entry


def _content(tar: tarfile.TarFile, entry: tarfile.TarInfo) -> Iterator[bytes]:
    file = tar.extractfile(entry) if entry.isfile() else None
    while file is not None and (chunk := file.read(_CHUNK)):
        yield chunk


def _header(entry: tarfile.TarInfo) -> bytes:
    return entry.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")


@contextmanager
def _opened(path: Path) -> Iterator[tarfile.TarFile]:
    with path.open("rb") as raw:
        packed = raw.read(2) == _GZIP
        raw.seek(0)
        with gzip.open(raw) if packed else raw as plain:
            sparing: Any = _BoundedReads(plain)
            with tarfile.open(fileobj=sparing, mode="r:") as tar:
                yield tar


class _BoundedReads:
    """A file that is never read in one large piece: contents are skipped by seeking."""

    def __init__(self, file: IO[bytes] | gzip.GzipFile) -> None:
        self._file = file
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= _MAX_HEADER_BYTES:
            raise tarfile.ReadError("a header is too long")
        return self._file.read(size)


def _check(entry: tarfile.TarInfo, links: set[str]) -> None:
    """Raise RequestError for an unsafe entry.

    `links`: the earlier symbolic links, to which it adds its own.
    """
    printable = entry.name[:200].encode(errors="replace").decode()
    name = entry.name
    if "\0" in name + entry.linkname:
        raise _invalid(f'"{printable}" has a NUL in its name')
    if escapes_root(name):
        raise _invalid(f'"{printable}" leads out of the context')
    if links and any(name[:end] in links for end, char in enumerate(name) if char == "/"):
        raise _invalid(f'"{printable}" is below a link')
    if entry.issym():
        links.add(name)
    if entry.issym() and escapes_root(posixpath.join(posixpath.dirname(name), entry.linkname)):
        raise _invalid(f'"{printable}" is a link that leads out of the context; add it to .dockerignore, or copy its target')
    if entry.islnk() and escapes_root(entry.linkname):
        raise _invalid(f'"{printable}" is a link that leads out of the context')
    if not (entry.isfile() or entry.isdir() or entry.issym() or entry.islnk()):
        raise _invalid(f'"{printable}" is neither a file, a directory nor a link; add it to .dockerignore')


def _check_place(entry: tarfile.TarInfo, dockerfile_path: str, found: bool) -> None:
    """Check that the Dockerfile is one plain file below directories only.

    Otherwise a later entry could replace the file that was checked.
    """
    if entry.name == dockerfile_path and not entry.isfile():
        raise _invalid(
            f'has a "{dockerfile_path}" that is not a regular file; send the file, or choose another one with ?dockerfile='
        )
    if entry.name == dockerfile_path and found:
        raise _invalid(f'has more than one "{dockerfile_path}"; send only one')
    if entry.name == dockerfile_path and entry.size > MAX_DOCKERFILE_BYTES:
        raise _invalid(f'has a "{dockerfile_path}" of more than {MAX_DOCKERFILE_BYTES} bytes')
    if dockerfile_path.startswith(f"{entry.name}/") and not entry.isdir():
        raise _invalid(f'has "{dockerfile_path}" below "{entry.name}", which is not a directory')


def escapes_root(name: str) -> bool:
    """Return True if the path leads out of the directory that it is relative to.

    `..` is harmless if the path stays inside.
    """
    return name.startswith("/") or posixpath.normpath(name).split("/")[0] == ".."


def _invalid(message: str) -> RequestError:
    return RequestError(422, "invalid_context", f"the context {message}"[:1000], [FieldError("body", message[:500])])
