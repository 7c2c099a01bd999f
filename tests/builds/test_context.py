"""Build contexts that clients send, and the entries that are refused."""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from services.builds.context import check_context, check_dockerfile, packed
from services.errors import RequestError

LIMIT = 100_000
DOCKERFILE = b"FROM scratch\n"
Fill = Callable[[tarfile.TarFile], object]


def add(tar: tarfile.TarFile, name: str, kind: bytes = tarfile.REGTYPE, link: str = "", content: bytes = b"") -> str:
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname, entry.size = kind, link, len(content)
    tar.addfile(entry, io.BytesIO(content))
    return name


def made(fill: Fill) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        add(tar, "./Dockerfile", content=DOCKERFILE)
        fill(tar)
    return file.getvalue()


def check(path: Path, data: bytes, dockerfile: str = "Dockerfile") -> str:
    (path / "context").write_bytes(data)
    return check_context(path / "context", dockerfile, LIMIT)


def sent(path: Path, dockerfile: str, text: str) -> dict[str, tarfile.TarInfo]:
    """Return the entries of a checked context that the engine is sent, by name."""
    (path / "sent").write_bytes(b"".join(packed(path / "context", dockerfile, text)))
    with tarfile.open(path / "sent", "r:") as tar:
        return {entry.name: entry for entry in tar}


def content(path: Path, name: str) -> bytes:
    with tarfile.open(path / "sent", "r:") as tar:
        file = tar.extractfile(name)
        assert file is not None
        return file.read()


def harmless(tar: tarfile.TarFile) -> None:
    add(tar, "sub", tarfile.DIRTYPE)
    add(tar, "sub/../a", content=b"a")
    add(tar, "sub/link", tarfile.SYMTYPE, "../a")
    add(tar, "hard", tarfile.LNKTYPE, "a")
    add(tar, "sub/Dockerfile.prod", content=DOCKERFILE)


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_context_within_its_directory_is_accepted(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    check(tmp_path, pack(made(harmless)))
    check(tmp_path, pack(made(harmless)), "sub/Dockerfile.prod")


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
        (lambda tar: add(tar, "pipe", tarfile.FIFOTYPE), "neither a file, a directory nor a link"),
        (lambda tar: add(tar, "null", tarfile.CHRTYPE), "neither a file, a directory nor a link"),
    ],
)
def test_context_entry_that_leads_out_or_is_special_file_is_refused(tmp_path: Path, fill: Fill, why: str) -> None:
    with pytest.raises(RequestError, match=why) as refused:
        check(tmp_path, made(fill))
    assert (refused.value.status, refused.value.code) == (422, "invalid_context")


GOOD = made(lambda tar: add(tar, "a", content=b"x" * 5000))
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
def test_incomplete_tar_or_context_without_dockerfile_is_refused(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(RequestError) as refused:
        check(tmp_path, data)
    assert refused.value.code == "invalid_context"


def test_missing_dockerfile_is_named(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r'has no "Dockerfile\.prod"'):
        check(tmp_path, made(harmless), "Dockerfile.prod")


@pytest.mark.parametrize(
    "fill",
    [
        lambda tar: add(tar, "zeros", content=bytes(LIMIT + 1)),
        lambda tar: [add(tar, f"{number}") for number in range(300)],
    ],
    ids=["one large file", "nothing but names"],
)
def test_context_that_unpacks_beyond_limit_is_refused(tmp_path: Path, fill: Fill) -> None:
    with pytest.raises(RequestError) as refused:
        check(tmp_path, gzip.compress(made(fill)))
    assert refused.value.status == 413


REMOTE = b"FROM scratch\nADD http://127.0.0.1/ /\n"


def pax(*records: tuple[str, str], kind: bytes = tarfile.XHDTYPE) -> bytes:
    """Return a pax header for the next entry, or with kind XGLTYPE for all entries."""
    text = b""
    for key, value in records:
        record = f" {key}={value}\n".encode()
        length = len(record) + 2 if len(record) < 8 else len(record) + (2 if len(record) < 98 else 3)
        text += str(length).encode() + record
    entry = tarfile.TarInfo("pax")
    entry.type, entry.size = kind, len(text)
    return entry.tobuf(tarfile.USTAR_FORMAT) + text + bytes(-len(text) % 512)


def plain(name: str, text: bytes, kind: bytes = tarfile.REGTYPE) -> bytes:
    entry = tarfile.TarInfo(name)
    entry.type, entry.size = kind, len(text)
    return entry.tobuf(tarfile.GNU_FORMAT) + text + bytes(-len(text) % 512)


END = bytes(1024)
ONE = plain("Dockerfile", DOCKERFILE)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (ONE + plain("Dockerfile", REMOTE) + END, "more than one"),
        (ONE + plain("./Dockerfile", REMOTE) + END, "more than one"),
        (ONE + plain("a/..//Dockerfile", REMOTE) + END, "more than one"),
        (ONE + plain("Dockerfile/", REMOTE) + END, "more than one"),
        (ONE + pax(("path", "Dockerfile")) + plain("x", REMOTE) + END, "more than one"),
        (ONE + plain("Dockerfile", b"", tarfile.DIRTYPE) + END, "not a regular file"),
        (gzip.compress(ONE) + gzip.compress(plain("Dockerfile", REMOTE) + END), "more than one"),
        (made(lambda tar: add(tar, "Dockerfile", tarfile.SYMTYPE, "other")), "not a regular file"),
        (made(lambda tar: add(tar, "Dockerfile", tarfile.LNKTYPE, "other")), "not a regular file"),
        (pax(("path", "Dockerfile\0x")) + plain("x", REMOTE) + ONE + END, "NUL"),
    ],
    ids=[
        "twice", "with a dot", "with two dots", "with a solidus", "by a pax header", "as a directory",
        "in a second gzip member", "as a symbolic link", "as a hard link", "with a NUL in a pax header",
    ],
)  # fmt: skip
def test_dockerfile_that_another_entry_may_replace_is_refused(tmp_path: Path, data: bytes, why: str) -> None:
    with pytest.raises(RequestError, match=why) as refused:
        check(tmp_path, data)
    assert refused.value.code == "invalid_context"


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.REGTYPE, tarfile.LNKTYPE])
def test_dockerfile_directory_that_another_entry_may_replace_is_refused(tmp_path: Path, kind: bytes) -> None:
    def fill(tar: tarfile.TarFile) -> None:
        add(tar, "sub/Dockerfile", content=DOCKERFILE)
        add(tar, "other/Dockerfile", content=REMOTE)
        add(tar, "sub", kind, "other" if kind != tarfile.REGTYPE else "")

    with pytest.raises(RequestError, match="not a directory"):
        check(tmp_path, made(fill), "sub/Dockerfile")


def test_engine_is_sent_only_entries_that_were_checked(tmp_path: Path) -> None:
    """A global pax header renames all entries for Python, but none for the engine. Some readers continue after the end."""
    ours = pax(("path", "kept"), kind=tarfile.XGLTYPE) + plain("Dockerfile", REMOTE)
    data = ONE + ours + END + plain("Dockerfile", REMOTE) + END
    assert check(tmp_path, data).encode() == DOCKERFILE
    entries = sent(tmp_path, "Dockerfile", "FROM x\n")
    assert list(entries) == ["Dockerfile", "kept"] and not any(entry.pax_headers for entry in entries.values())
    assert content(tmp_path, "Dockerfile") == b"FROM x\n" and content(tmp_path, "kept") == REMOTE


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_context_is_sent_unchanged_except_its_dockerfile(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    long, text = "d/" * 80 + "\u00e9\udcff", b"x" * 1500

    def fill(tar: tarfile.TarFile) -> None:
        harmless(tar)
        entry = tarfile.TarInfo(long)
        entry.size, entry.mode, entry.uid, entry.mtime = len(text), 0o750, 3_000_000, 1_700_000_000
        tar.addfile(entry, io.BytesIO(text))
        for number in range(40):
            add(tar, f"block-{number}", content=bytes([number]) * 512)

    text_of = check(tmp_path, pack(made(fill)), "./sub/../sub/Dockerfile.prod")
    entries = sent(tmp_path, "sub//Dockerfile.prod", text_of)
    assert (entries[long].mode, entries[long].uid, entries[long].mtime) == (0o750, 3_000_000, 1_700_000_000)
    assert entries["sub"].isdir() and entries["sub/link"].linkname == "../a" and entries["hard"].islnk()
    assert content(tmp_path, long) == text and content(tmp_path, "sub/Dockerfile.prod") == DOCKERFILE
    assert content(tmp_path, "block-39") == b"\x27" * 512


def test_invalid_utf_8_in_dockerfile_is_preserved(tmp_path: Path) -> None:
    odd = b"FROM scratch\nRUN \xff\xc3\n"
    text = check(tmp_path, plain("Dockerfile", odd) + END)
    sent(tmp_path, "Dockerfile", text)
    assert content(tmp_path, "Dockerfile") == odd


def test_dockerfile_larger_than_one_mib_is_refused(tmp_path: Path) -> None:
    (tmp_path / "context").write_bytes(plain("Dockerfile", b"#" * (1024 * 1024 + 1)) + END)
    with pytest.raises(RequestError, match="more than 1048576 bytes"):
        check_context(tmp_path / "context", "Dockerfile", 10_000_000)


@pytest.mark.parametrize("text", ["FROM scratch\nADD http://x /\udcff\n", "FROM $A\n"])
def test_refused_dockerfile_is_reported_with_line(text: str) -> None:
    with pytest.raises(RequestError, match=r"Dockerfile.* line \d: ") as refused:
        check_dockerfile(text, {})
    assert (refused.value.status, refused.value.code) == (422, "invalid_context")
    assert refused.value.detail.isascii()
