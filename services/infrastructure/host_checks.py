"""Checks of the store's file, the disk that it is on, and the clock."""

from __future__ import annotations

import ctypes
import shutil
from contextlib import suppress

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlmodel import Session, col, select

from services.clock import Clock
from services.infrastructure.doctor_findings import DoctorFinding, ok, warning, wrong
from services.store.database import Store
from services.store.tables import Event

MB = 1024**2
DISK_WARNING_BYTES, DISK_ERROR_BYTES = 512 * MB, 64 * MB
"""Free bytes below which a disk gets a warning, and below which it is an error."""
WAL_WARNING_BYTES = 64 * MB
"""Bytes of the write-ahead log above which it gets a warning."""
MAX_CLOCK_LEAD = 5.0
"""Seconds that the newest event may seem to be in the future."""
_UNSYNCHRONISED = 5
"""Return value of adjtimex for a clock that is not synchronised (TIME_ERROR)."""
_TIMEX_BYTES = 512
"""Bytes that are more than enough for the result of adjtimex."""


async def store_findings(store: Store) -> list[DoctorFinding]:
    """Check that SQLite finds its file intact, the length of its log, and the space left to write."""
    found = []
    path = store.path
    try:
        problems = await store.read(_quick_check)
    except DBAPIError as error:
        problems = [str(error.orig)]
    size = path.stat().st_size / MB
    if problems:
        advice = "Stop Sluice, keep the file, and replace it by a backup (from `sluice backup` or <data>/backups)."
        found.append(wrong("store", f"database is corrupt: {'; '.join(problems[:3])}", advice))
    else:
        found.append(ok("store", f"{size:.1f} MB, intact"))
    log = path.with_name(f"{path.name}-wal")
    length = 0
    with suppress(FileNotFoundError):
        length = log.stat().st_size
    if length > WAL_WARNING_BYTES:
        advice = "A read takes very long; a restart of Sluice merges the log into the database."
        found.append(warning("write-ahead log", f"{length / MB:.0f} MB", advice))
    else:
        found.append(ok("write-ahead log", f"{length / MB:.1f} MB"))
    found.append(disk_finding(str(path.parent), shutil.disk_usage(path.parent).free))
    return found


def disk_finding(directory: str, free: int) -> DoctorFinding:
    """Check the free bytes of the disk that `directory` is on."""
    detail = f"{free / MB:.0f} MB free in {directory}"
    advice = "Free space: `docker image prune`, old files in <data>/backups. A full disk stops deployments, not requests."
    if free < DISK_ERROR_BYTES:
        return wrong("disk", detail, advice)
    return warning("disk", detail, advice) if free < DISK_WARNING_BYTES else ok("disk", detail)


async def clock_finding(store: Store, clock: Clock) -> list[DoctorFinding]:
    """Check that the clock was not set back since the newest event, and that it is synchronised."""
    newest = await store.read(lambda session: session.exec(select(Event.at).order_by(col(Event.id).desc()).limit(1)).first())
    ahead = (newest or 0.0) - clock.now()
    if ahead > MAX_CLOCK_LEAD:
        advice = "Correct it (`timedatectl set-ntp true`). Deployments continue; times in the history are out of order."
        return [wrong("clock", f"the clock was set back: the last event is {ahead:.0f} s in the future", advice)]
    if not _synchronised():
        return [warning("clock", "not synchronised", "Enable time synchronisation: `timedatectl set-ntp true`.")]
    return [ok("clock", "synchronised by the system")]


def _quick_check(session: Session) -> list[str]:
    results = [str(row[0]) for row in session.connection().execute(text("PRAGMA quick_check(3)"))]
    return [] if results == ["ok"] else results


def _synchronised() -> bool:
    """Return whether the clock is synchronised; True if the kernel does not say."""
    try:
        answer: int = ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.create_string_buffer(_TIMEX_BYTES))
    except (OSError, AttributeError):
        return True
    return answer != _UNSYNCHRONISED
