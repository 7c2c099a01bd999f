"""Connections that the SDK's clients keep open."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import docker
import pytest
from docker.errors import NotFound

from services.engine.docker.client import ClientPool

pytestmark = [pytest.mark.anyio, pytest.mark.docker]


def sockets() -> int:
    found = 0
    for each in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # The descriptor of this directory listing.
            found += os.readlink(each).startswith("socket:")
    return found


async def test_client_keeps_one_connection_after_many_calls() -> None:
    def ask_about_many(client: docker.APIClient) -> None:
        for number in range(40):
            with suppress(NotFound):
                client.inspect_container(f"missing-{number}")

    clients = ClientPool()
    before = sockets()
    await clients.call(ask_about_many)
    assert sockets() <= before + 1
    clients.close()
