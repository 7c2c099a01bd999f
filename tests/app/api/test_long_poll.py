"""Held answers read their deployment only after an event of it; otherwise they only check whether the client is there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest
from sqlmodel import Session

from app.api import long_poll
from app.api.deployment_responses import DeploymentPoll
from app.live.event_feed import EventFeed
from services.store.database import Store
from services.store.events import ChangeNotifier
from services.store.open import open_store
from services.store.tables import Deployment, Service

pytestmark = pytest.mark.anyio
T = TypeVar("T")


class Counted:
    """The parts of Sluice that a held answer needs; counts the reads of the store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.store = self
        self.stopping = asyncio.Event()
        self.event_feed = EventFeed(store, ChangeNotifier(), self.stopping)
        self.reads = 0

    async def read(self, work: Callable[[Session], T]) -> T:
        self.reads += 1
        return await self._store.read(work)


class Client:
    """Client that disconnects after `patience` checks."""

    def __init__(self, patience: int) -> None:
        self.patience = patience

    async def is_disconnected(self) -> bool:
        self.patience -= 1
        return self.patience < 0


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def test_held_answer_does_not_query_the_store_while_nothing_happens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(long_poll, "CLIENT_CHECK_INTERVAL", 0.001)
    store = open_store(tmp_path)
    with store.write_session() as session:
        session.add(Service(name="web", internal_port=30000, created_at=1.0))
        session.flush()
        session.add(Deployment(id=1, service="web", kind="deploy", status="progressing", created_at=1.0))
    sluice: Any = Counted(store)
    client: Any = Client(patience=50)
    assert await DeploymentPoll(sluice, 1).wait_for_end(client, 60) is False
    store.close()
    assert client.patience == -1
    assert sluice.reads <= 2, "one at first, and one when the feed has begun"
