"""What a client sends as the context of a build, and what is refused of it."""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from services.builds.context import check_context
from services.rollouts.refusal import Refusal

LIMIT = 100_000
DOCKERFILE = b"FROM scratch\n"
Fill = Callable[[tarfile.TarFile], object]


def add(tar: tarfile.TarFile, name: str, kind: bytes = tarfile.REGTYPE, link: str = "", content: bytes = b"") -> str:
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname, entry.size = kind, link, len(content)
    tar.addfile(entry, io.BytesIO(content))
    return name


def packed(fill: Fill) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        add(tar, "./Dockerfile", content=DOCKERFILE)
        fill(tar)
    return file.getvalue()


def check(path: Path, data: bytes, dockerfile: str = "Dockerfile") -> None:
    (path / "context").write_bytes(data)
    check_context(path / "context", dockerfile, LIMIT)


def harmless(tar: tarfile.TarFile) -> None:
    add(tar, "sub", tarfile.DIRTYPE)
    add(tar, "sub/../a", content=b"a")
    add(tar, "sub/link", tarfile.SYMTYPE, "../a")
    add(tar, "hard", tarfile.LNKTYPE, "a")
    add(tar, "sub/Dockerfile.prod", content=DOCKERFILE)


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_a_context_that_stays_in_its_folder_is_good(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    check(tmp_path, pack(packed(harmless)))
    check(tmp_path, pack(packed(harmless)), "sub/Dockerfile.prod")


@pytest.mark.parametrize(
    ("fill", "why"),
    [
        (lambda tar: add(tar, "../evil"), '"../evil" leads out'),
        (lambda tar: add(tar, "sub/../../evil"), "leads out"),
        (lambda tar: add(tar, "/etc/passwd"), "leads out"),
        (lambda tar: add(tar, "link", tarfile.SYMTYPE, "/etc/passwd"), "link that leads out"),
        (lambda tar: add(tar, "sub/link", tarfile.SYMTYPE, "../../x"), "link that leads out"),
        (lambda tar: add(tar, "hard", tarfile.LNKTYPE, "../x"), "link that leads out"),
        (lambda tar: (add(tar, "here", tarfile.SYMTYPE, "."), add(tar, "here/x")), "below a link"),
        (lambda tar: add(tar, "pipe", tarfile.FIFOTYPE), "neither file, directory nor link"),
        (lambda tar: add(tar, "null", tarfile.CHRTYPE), "neither file, directory nor link"),
    ],
)
def test_what_climbs_out_of_its_folder_is_refused(tmp_path: Path, fill: Fill, why: str) -> None:
    with pytest.raises(Refusal, match=why) as refused:
        check(tmp_path, packed(fill))
    assert (refused.value.status, refused.value.code) == (422, "invalid_context")


GOOD = packed(lambda tar: add(tar, "a", content=b"x" * 5000))
LONG_NAME = tarfile.TarInfo("x" * 2_000_000)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"hello",
        b"\x1f\x8bhello",
        b"x" * 2048,
        GOOD[:3000],
        gzip.compress(GOOD)[:-20],
        LONG_NAME.tobuf(tarfile.GNU_FORMAT),
        bytes(10240),
    ],
    ids=["empty", "text", "no gzip", "no tar", "cut off", "gzip cut off", "a name of megabytes", "nothing but its end"],
)
def test_what_is_no_whole_tar_or_has_no_dockerfile_is_refused(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(Refusal) as refused:
        check(tmp_path, data)
    assert refused.value.code == "invalid_context"


def test_a_dockerfile_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(Refusal, match=r'has no "Dockerfile\.prod"'):
        check(tmp_path, packed(harmless), "Dockerfile.prod")


@pytest.mark.parametrize(
    "fill",
    [
        lambda tar: add(tar, "zeros", content=bytes(LIMIT + 1)),
        lambda tar: [add(tar, f"{number}") for number in range(300)],
    ],
    ids=["one large file", "nothing but names"],
)
def test_what_unpacks_to_more_than_the_limit_is_refused(tmp_path: Path, fill: Fill) -> None:
    with pytest.raises(Refusal) as refused:
        check(tmp_path, gzip.compress(packed(fill)))
    assert refused.value.status == 413
