"""One command and its answer when the master restarts in between."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from services.gateway.runtime.runtime_api import OldMasterGone, RuntimeApi
from services.routing.port import RoutingError

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@asynccontextmanager
async def master(path: Path, forgets: int) -> AsyncIterator[list[str]]:
    """Run a master that ignores the first `forgets` commands.

    No answer comes and the connection stays open, as around a reload.
    """
    heard: list[str] = []
    over = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append((await reader.readline()).decode().strip())
        if len(heard) <= forgets:
            await over.wait()
        else:
            writer.write(b"\n")
            await writer.drain()
        writer.close()

    server = await asyncio.start_unix_server(serve, path)
    try:
        yield heard
    finally:
        over.set()
        server.close()
        await server.wait_closed()


async def test_urgent_command_is_repeated_if_the_master_does_not_answer(tmp_path: Path) -> None:
    async with master(tmp_path / "master.sock", forgets=2) as heard:
        await RuntimeApi(tmp_path / "master.sock").execute("set server web/web-r1-1 state maint", urgent=True)
        assert heard == ["@1 set server web/web-r1-1 state maint"] * 3


async def test_other_command_is_sent_once_and_times_out(tmp_path: Path) -> None:
    async with master(tmp_path / "master.sock", forgets=9) as heard:
        with pytest.raises(RoutingError, match=r"did not answer 'enable' within 0\.3 s"):
            await RuntimeApi(tmp_path / "master.sock").execute("enable server web/web-r1-1", timeout=0.3)
        assert heard == ["@1 enable server web/web-r1-1"]


async def test_old_master_is_gone_only_when_its_socket_refuses_connections(tmp_path: Path) -> None:
    closed = 0

    async def speechless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal closed
        closed += 1
        writer.close()

    api = RuntimeApi(tmp_path / "master.sock")
    async with await asyncio.start_unix_server(speechless, tmp_path / "leaving.sock"):
        with pytest.raises(RoutingError, match="The gateway does not answer") as failed:
            await api.query("show proc", "leaving.sock@1")
    assert not isinstance(failed.value, OldMasterGone) and closed > 1
    with pytest.raises(OldMasterGone):
        await api.query("show proc", "leaving.sock@1")


async def test_answer_of_a_master_that_has_already_closed_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def closed_already(writer: asyncio.StreamWriter) -> None:
        raise OSError(errno.ENOTCONN, "Transport endpoint is not connected")

    monkeypatch.setattr(asyncio.StreamWriter, "write_eof", closed_already)
    async with master(tmp_path / "leaving.sock", forgets=0):
        assert await RuntimeApi(tmp_path / "master.sock").query("show proc", "leaving.sock@1") == "\n"
