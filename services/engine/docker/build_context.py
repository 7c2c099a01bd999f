"""Packing of a directory as a build context, as `docker build` packs it.

Files that .dockerignore excludes are left out.
"""

from __future__ import annotations

from pathlib import Path
from typing import IO

from docker.errors import DockerException
from docker.utils.build import tar

_IGNORE = ".dockerignore"


def pack(directory: Path, dockerfile: str, into: IO[bytes]) -> None:
    """Write a tar.gz of `directory`. Raises OSError or ValueError if something in it cannot be read.

    `dockerfile` is its path in the directory; it is included even if .dockerignore excludes it.
    """
    try:
        tar(directory, exclude=_ignored(directory), dockerfile=(dockerfile, None), fileobj=into, gzip=True)
    except DockerException as error:
        raise ValueError(str(error)) from error


def _ignored(directory: Path) -> list[str]:
    path = directory / _IGNORE
    lines = path.read_text("utf-8-sig").splitlines() if path.is_file() else []
    return [line for line in map(str.strip, lines) if line and not line.startswith("#")]
