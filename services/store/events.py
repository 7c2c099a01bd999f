"""The event log and its change notifications.

Event rows are append-only and are written in the transaction of the change that they record.
"""

from __future__ import annotations

import asyncio
from typing import Any

from sqlmodel import Session, col

from services.store.readonly import select_readonly
from services.store.tables import Event

EVENTS = select_readonly(Event)


class ChangeNotifier:
    """A notifier for all tasks that wait for new events. The tasks read the events from the table."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def notify(self) -> None:
        """Wake all waiting tasks. Call it after the commit, from the event loop's thread."""
        self._event.set()
        self._event = asyncio.Event()

    def wait(self) -> asyncio.Event:
        """Return the event to wait on. Take it before reading the table, so that no change is missed."""
        return self._event


def append_event(session: Session, at: float, event_type: str, message: str = "", **fields: Any) -> Event:
    """Append an event (`deployment`, `service`, `instance`, `data`, `actor_kind`, `actor_name`, `remote`)."""
    event = Event(at=at, type=event_type, message=message, **fields)
    session.add(event)
    return event


def since(session: Session, after: int, *, deployment: int | None = None, limit: int = 200) -> list[Event]:
    """Return the events with an id greater than `after`, oldest first."""
    query = EVENTS.where(col(Event.id) > after).order_by(col(Event.id)).limit(limit)
    if deployment is not None:
        query = query.where(Event.deployment == deployment)
    return list(session.exec(query))
