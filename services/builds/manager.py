"""Builds, each from an uploaded context to a tagged image or a reason of failure."""

from __future__ import annotations

import asyncio
import posixpath
import secrets
import shutil
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import anyio
import structlog
from sqlmodel import Session, col, select

from services.actor import Actor
from services.builds.build_request import BuildRequest
from services.builds.context import packed
from services.builds.log import MAX_LINE_CHARS, LogBuffer
from services.builds.pinning import pinned_dockerfile
from services.clock import Clock
from services.engine.port import BuildSpec, Engine, EngineError
from services.errors import RequestError
from services.masking import log_mask
from services.store.database import Store
from services.store.events import ChangeNotifier, append_event
from services.store.tables import Build

log = structlog.get_logger(__name__)
PENDING, BUILDING, SUCCEEDED, FAILED = "pending", "building", "succeeded", "failed"
UNFINISHED = (PENDING, BUILDING)
MAX_CONCURRENT_BUILDS = 2
"""Maximum concurrent builds; the others wait."""
MAX_UNFINISHED_BUILDS = 20
"""Maximum unfinished builds, including those waiting or uploading; it limits their disk usage."""
LOG_UPDATE_INTERVAL = 5.0
"""Seconds between two writes of a running build's log to the store."""


@dataclass(frozen=True)
class BuildSettings:
    """Settings of builds.

    - `directory`: holds uploads until they are built.
    - `context_size`: maximum in bytes.
    - `timeout`: in seconds.
    - `network`: the network of a build's steps, as Docker names it.
    """

    directory: Path
    context_size: int
    timeout: float
    network: str


@dataclass(frozen=True)
class BuildResult:
    """The end of a build. `image_id` is set if it succeeded."""

    status: str
    reason: str | None
    message: str
    image_id: str | None = None


@dataclass
class ActiveBuild:
    """A build that has not ended."""

    log: LogBuffer = field(default_factory=LogBuffer)
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    """Scope of everything except the writing of the build's end."""
    cancelled_by: Actor | None = None


class BuildManager:
    """Manager of builds. Unfinished builds are in memory, ended ones in the store."""

    def __init__(
        self, store: Store, clock: Clock, engine: Engine, notifier: ChangeNotifier, settings: BuildSettings
    ) -> None:
        self.settings = settings
        self._store = store
        self._clock = clock
        self._engine = engine
        self._notifier = notifier
        self._slots = asyncio.Semaphore(MAX_CONCURRENT_BUILDS)
        self._running: dict[int, ActiveBuild] = {}
        self.sending = 0
        """Number of contexts being uploaded."""

    @property
    def full(self) -> bool:
        return len(self._running) + self.sending >= MAX_UNFINISHED_BUILDS

    async def open(self) -> None:
        """Mark builds that Sluice's last end interrupted as failed and remove their uploads. Call at start."""
        result = BuildResult(FAILED, "interrupted", "Sluice stopped during the build; build again")

        def fail(session: Session) -> None:
            for row in session.exec(select(Build).where(col(Build.status).in_(UNFINISHED))):
                self._set_result(session, row, result)
                self._append_event(session, row, "build_failed", f"build {row.id} of {row.service}: {result.message}")

        await self._store.write(fail)
        shutil.rmtree(self.settings.directory, ignore_errors=True)
        self.settings.directory.mkdir(mode=0o700, exist_ok=True)

    async def close(self) -> None:
        """Cancel the running builds. The next start marks them as failed."""
        tasks = [running.task for running in self._running.values() if running.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def running(self, id: int) -> ActiveBuild | None:
        """Return the build, None if it has ended or does not exist."""
        return self._running.get(id)

    async def begin(self, request: BuildRequest, by: Actor) -> int:
        """Start a build in the background and return its number. Its context file then belongs to the build."""

        def make(session: Session) -> Build:
            now = self._clock.now()
            row = Build(
                service=request.service,
                status=PENDING,
                message="queued",
                image=_new_tag(session, request.service, now),
                dockerfile=request.dockerfile,
                target=request.target,
                created_by_kind=by.kind,
                created_by_name=by.name,
                created_at=now,
            )
            session.add(row)
            session.flush()
            self._append_event(session, row, "build_requested", f"build {row.id} of {row.service} requested", by)
            return row

        row = await self._store.write(make)
        id = row.id or 0
        running = self._running[id] = ActiveBuild()
        request = replace(request, context=request.context.rename(self.settings.directory / f"{id}.tar"))
        running.task = asyncio.create_task(self._run(id, request, row.image, running), name=f"build {id}")
        self._notifier.notify()
        return id

    async def cancel(self, id: int, by: Actor) -> None:
        """Cancel a build and wait for its end.

        Raises RequestError: 404 `unknown_build`, or 409 if the build had ended already.
        """
        running = self._running.get(id)
        if running is None:
            row = await self._store.read(lambda session: find_build(session, id))
            raise RequestError(
                409, "not_in_that_state", f"build {id} of {row.service} has {row.status}: cannot be cancelled"
            )
        running.cancelled_by = running.cancelled_by or by
        running.scope.cancel()
        await running.ended.wait()

    async def _run(self, id: int, request: BuildRequest, tag: str, running: ActiveBuild) -> None:
        result = BuildResult(FAILED, "cancelled", "cancelled")
        try:
            with running.scope:
                async with self._slots:
                    await self._store.write(lambda session: self._record_start(session, id))
                    self._notifier.notify()
                    result = await self._build(id, request, tag, running.log)
            by = running.cancelled_by if result.reason == "cancelled" else None
            await self._store.write(lambda session: self._record_end(session, id, running.log, result, by))
        except Exception:
            log.exception("could not record the end of a build", build=id)
        finally:
            request.context.unlink(missing_ok=True)
            del self._running[id]
            running.ended.set()
            running.log.lines_changed.notify()
            self._notifier.notify()

    async def _build(self, id: int, request: BuildRequest, tag: str, written: LogBuffer) -> BuildResult:
        """Build the image."""
        last_update = self._clock.now()
        masked = log_mask({"args": dict(request.args)}).lines()
        try:
            async with asyncio.timeout(self.settings.timeout):
                pinned = await pinned_dockerfile(self._engine, request, written)
                spec = BuildSpec(
                    service=request.service,
                    tag=tag,
                    context=packed(request.context, request.dockerfile, pinned.text),
                    dockerfile=posixpath.normpath(request.dockerfile),
                    target=request.target,
                    args=request.args,
                    network=self.settings.network,
                )
                async with aclosing(self._engine.build(spec)) as lines:  # type: ignore[type-var]
                    async for line in lines:
                        written.write(masked(pinned.named(line[:MAX_LINE_CHARS])))
                        if self._clock.now() - last_update > LOG_UPDATE_INTERVAL:
                            last_update = self._clock.now()
                            await self._update(id, log=str(written), log_first=written.first)
            image = await self._engine.find_image(tag)
        except TimeoutError:
            why = f"timed out after {self.settings.timeout:g} s; speed the build up, or raise SLUICE_BUILD_TIMEOUT"
            return BuildResult(FAILED, "timeout", why)
        except EngineError as error:
            return BuildResult(FAILED, error.reason, masked(str(error)[:2000]))
        if image is None:
            return BuildResult(FAILED, "build_failed", "the engine ended the build without an error message")
        return BuildResult(SUCCEEDED, None, f"built as {tag}", image.id)

    def _record_start(self, session: Session, id: int) -> None:
        row = session.get_one(Build, id)
        row.status, row.message, row.started_at = BUILDING, "building", self._clock.now()
        session.add(row)
        self._append_event(session, row, "build_started", f"build {id} of {row.service}: {row.message}")

    def _record_end(self, session: Session, id: int, written: LogBuffer, result: BuildResult, by: Actor | None) -> None:
        row = session.get_one(Build, id)
        row.log, row.log_first = str(written), written.first
        self._set_result(session, row, result)
        self._append_event(session, row, f"build_{result.status}", f"build {id} of {row.service}: {result.message}", by)

    def _set_result(self, session: Session, row: Build, result: BuildResult) -> None:
        row.status, row.reason, row.message = result.status, result.reason, result.message
        row.image_id, row.finished_at = result.image_id, self._clock.now()
        session.add(row)

    def _append_event(self, session: Session, row: Build, event_type: str, message: str, by: Actor | None = None) -> None:
        data = {"build": row.id, "image": row.image, "status": row.status, "reason": row.reason}
        who = by.columns() if by is not None else {}
        append_event(session, self._clock.now(), event_type, message, service=row.service, data=data, **who)

    async def _update(self, id: int, **columns: object) -> None:
        def write(session: Session) -> None:
            row = session.get_one(Build, id)
            for name, value in columns.items():
                setattr(row, name, value)
            session.add(row)

        await self._store.write(write)


def find_build(session: Session, id: int) -> Build:
    """Return the build. Raises RequestError 404 `unknown_build`."""
    row = session.get(Build, id)
    if row is None:
        raise RequestError(404, "unknown_build", f"build {id} not found")
    return row


def _new_tag(session: Session, service: str, now: float) -> str:
    """Return an unused tag `<service>:<UTC time to the second>-<short id>`."""
    moment = datetime.fromtimestamp(now, UTC).strftime("%Y%m%d-%H%M%S")
    while True:
        tag = f"{service}:{moment}-{secrets.token_hex(2)}"
        if session.exec(select(Build.id).where(Build.image == tag)).first() is None:
            return tag
