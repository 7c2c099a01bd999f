"""One command and its answer, when the master that hears it starts itself anew in between."""

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
    """Takes commands, and forgets the first ones: no answer comes and the connection stays, as around a reload."""
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


async def test_what_is_urgent_is_told_again_soon_when_the_master_forgets_it(tmp_path: Path) -> None:
    async with master(tmp_path / "master.sock", forgets=2) as heard:
        await RuntimeApi(tmp_path / "master.sock").execute("set server web/web-r1-1 state maint", urgent=True)
        assert heard == ["@1 set server web/web-r1-1 state maint"] * 3


async def test_what_is_not_urgent_is_told_once_and_given_up(tmp_path: Path) -> None:
    async with master(tmp_path / "master.sock", forgets=9) as heard:
        with pytest.raises(RoutingError, match=r"did not answer 'enable' within 0\.3 s"):
            await RuntimeApi(tmp_path / "master.sock").execute("enable server web/web-r1-1", timeout=0.3)
        assert heard == ["@1 enable server web/web-r1-1"]


async def test_a_replaced_master_is_gone_when_nobody_listens_any_more_and_not_for_less(tmp_path: Path) -> None:
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


async def test_a_master_that_has_said_all_and_closed_is_heard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def closed_already(writer: asyncio.StreamWriter) -> None:
        raise OSError(errno.ENOTCONN, "Transport endpoint is not connected")

    monkeypatch.setattr(asyncio.StreamWriter, "write_eof", closed_already)
    async with master(tmp_path / "leaving.sock", forgets=0):
        assert await RuntimeApi(tmp_path / "master.sock").query("show proc", "leaving.sock@1") == "\n"
