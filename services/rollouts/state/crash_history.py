"""Recent crashes of instances, read from the events.

A restart of Sluice therefore forgets no crash loop.
"""

from __future__ import annotations

from sqlmodel import Session, col, select

from services.store.tables import Event


def crashes_since(session: Session, since: float) -> list[tuple[str, int, float]]:
    """Return service, slot and time (seconds since the epoch) of each crash after `since`, oldest first."""
    # Times have no index. A search from the newest event back reads only the events that are asked for.
    before = select(Event.id).where(Event.at <= since).order_by(col(Event.id).desc()).limit(1)
    query = (
        select(Event.service, Event.data, Event.at)
        .where(col(Event.id) > (session.exec(before).first() or 0), col(Event.instance).is_not(None))
        .order_by(col(Event.id))
    )
    return [(service, data["slot"], at) for service, data, at in session.exec(query) if service and data.get("died")]
