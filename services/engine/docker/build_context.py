"""A directory as the context of a build: packed as `docker build` packs it, with what .dockerignore names left out."""

from __future__ import annotations

from pathlib import Path
from typing import IO

from docker.errors import DockerException
from docker.utils.build import tar

_IGNORE = ".dockerignore"


def pack(directory: Path, dockerfile: str, into: IO[bytes]) -> None:
    """Write a tar.gz of `directory`. OSError or ValueError for what cannot be read.

    `dockerfile`: its path in the directory; it goes along whatever .dockerignore says.
    """
    try:
        tar(directory, exclude=_ignored(directory), dockerfile=(dockerfile, None), fileobj=into, gzip=True)
    except DockerException as error:
        raise ValueError(str(error)) from error


def _ignored(directory: Path) -> list[str]:
    path = directory / _IGNORE
    lines = path.read_text("utf-8-sig").splitlines() if path.is_file() else []
    return [line for line in map(str.strip, lines) if line and not line.startswith("#")]
