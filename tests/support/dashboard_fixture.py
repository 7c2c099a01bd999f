"""The application with real pages and without an engine: tests write rows as the controller would."""

from __future__ import annotations

import asyncio
import io
import tarfile
import uuid
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar, cast

from fastapi import FastAPI
from sqlmodel import Session, col, func, select

from app.api import builds, traffic_metrics
from app.auth import Authentication
from app.context import AppContext
from app.pages import pages
from app.problems import install
from app.settings import Settings
from services.actor import Actor
from services.auth.access import AuthService
from services.auth.tokens import TokenKey
from services.builds.build_request import BuildRequest
from services.builds.manager import PENDING, BuildManager, BuildSettings
from services.clock import SystemClock
from services.control_metrics.metrics import Metrics
from services.engine.port import ImageInfo
from services.eureka.registry import Registry
from services.eureka.repository import LeaseRepository
from services.readiness import Readiness
from services.rollouts.requests.admission import AdmissionRules
from services.rollouts.requests.dry_run import DryRun
from services.rollouts.requests.pull_credentials import PullCredentials
from services.rollouts.requests.submit import Submitter
from services.rollouts.state.runtime_status import RuntimeStatus
from services.store.events import ChangeNotifier, append_event
from services.store.open import open_store
from services.store.tables import Build, Deployment, Instance, Revision, Service
from tests.support.fakes.engine import FakeEngine
from tests.support.fakes.gateway import FakeGateway

T = TypeVar("T")


def apart(work: Coroutine[Any, Any, T]) -> T:
    """Run the coroutine in a thread: a test that drives a browser already runs an event loop in its own."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, work).result()


class DashboardFixture:
    """The dashboard under test. `app` can be served; `token` is the admin's; `write` updates open pages."""

    def __init__(self, data: Path) -> None:
        store = open_store(data)
        clock, listeners, self.credentials = SystemClock(), ChangeNotifier(), PullCredentials()
        engine = FakeEngine(clock)
        for number in (1, 2):
            engine.images[f"web:{number}"] = ImageInfo(f"sha256:{number}", f"web:{number}", (8080,))
        self.hinted: list[str] = []
        self._ports = 20000
        absent = cast(Any, None)
        self.sluice = AppContext(
            settings=Settings(data=data, public_host="gateway.test"),
            store=store,
            clock=clock,
            notifier=listeners,
            runtime_status=RuntimeStatus(),
            readiness=Readiness(),
            engine=engine,
            gateway=absent,
            infrastructure=absent,
            submitter=Submitter(store, clock, engine, listeners, self.hinted.append, AdmissionRules(), self.credentials),
            dry_run=DryRun(store, clock, engine, [FakeGateway(clock)], AdmissionRules()),
            controller=absent,
            auth=AuthService(store, clock, TokenKey.of(data)),
            metrics=Metrics("1.0"),
            traffic_sampler=absent,
            registry=Registry(clock, LeaseRepository(store)),
            external_eureka=absent,
            build_manager=BuildManager(
                store, clock, engine, listeners, BuildSettings(data / "builds", 10**6, 60, "default")
            ),
        )
        shown = [""]
        apart(self.sluice.auth.open(shown.append))
        apart(self.sluice.build_manager.open())
        self.token = shown[-1]
        self.loop: asyncio.AbstractEventLoop | None = None
        self.app = FastAPI(docs_url=None)
        self.app.state.sluice = self.sluice
        self.app.add_middleware(Authentication)
        install(self.app)
        self.app.include_router(pages)
        self.app.include_router(traffic_metrics.router)
        self.app.include_router(builds.router)

    def close(self) -> None:
        self.sluice.store.close()

    def write(self, work: Callable[[Session], T]) -> T:
        """Run one transaction, then notify listeners."""
        with self.sluice.store.write_session() as session:
            done = work(session)
        self.wake()
        return done

    def wake(self) -> None:
        if self.loop is not None:
            self.loop.call_soon_threadsafe(self.sluice.notifier.notify)

    def link(self) -> str:
        """Return a one-time sign-in code of the admin."""
        admin = self.sluice.auth.principal(self.token)
        assert admin is not None
        return apart(self.sluice.auth.make_link(admin))[0]

    def change(self, kind: type[Any], key: Any, **fields: Any) -> None:
        """Set fields of a row, and append the event that the controller would: pages update only on events."""

        def work(session: Session) -> None:
            row = session.get(kind, key)
            assert row is not None, f"no {kind.__name__} {key}"
            for name, value in fields.items():
                setattr(row, name, value)
            session.add(row)
            if kind is Instance:
                self._tell_of_instance(session, row)
            elif kind is Deployment:
                data = {**row.progress, "traffic": row.traffic}
                append_event(session, self.sluice.clock.now(), "progress", deployment=row.id, service=row.service, data=data)

        self.write(work)

    def service(self, name: str = "web", replicas: int = 3, **fields: Any) -> None:
        """Add a service that serves its revision 1 with all its instances."""
        self.write(lambda session: self._service(session, name, replicas, fields))

    def deployment(self, service: str = "web", **fields: Any) -> int:
        """Add a deployment of revision 2 that just began, and return its number.

        Three old instances serve, and three new ones are being created.
        """
        return self.write(lambda session: self._deployment(session, service, fields))

    def built(self, service: str = "web", **fields: Any) -> int:
        """Add a succeeded build."""
        now = self.sluice.clock.now()
        number = self.write(lambda session: _build(session, service, now, fields))
        self.write(
            lambda session: (
                append_event(session, now, "build_succeeded", f"build {number} of {service}", service=service) and None
            )
        )
        return number

    async def begin_build(self, dockerfile: str, service: str = "web") -> int:
        """Start a build in the server's loop, and return its number once it is building.

        This must run in that loop, and the test's own thread must not write while the loop does.
        """
        builds = self.sluice.build_manager
        context = builds.settings.directory / f"{uuid.uuid4().hex}.upload"
        entry = tarfile.TarInfo("Dockerfile")
        entry.size = len(dockerfile.encode())
        with tarfile.open(context, "w") as tar:
            tar.addfile(entry, io.BytesIO(dockerfile.encode()))
        number = await builds.begin(BuildRequest(service, context, dockerfile), Actor("token", "ci"))
        while True:
            woken = self.sluice.notifier.wait()
            row = await self.sluice.store.read(lambda session: session.get_one(Build, number))
            if row.status != PENDING:
                return number
            await woken.wait()

    def tell(self, deployment: int, event_type: str, message: str) -> None:
        """Append an event to a deployment's history."""
        now = self.sluice.clock.now()

        def work(session: Session) -> None:
            service = session.get_one(Deployment, deployment).service
            append_event(session, now, event_type, message, deployment=deployment, service=service)

        self.write(work)

    def _tell_of_instance(self, session: Session, row: Instance) -> None:
        mine = select(func.max(Deployment.id)).where(col(Deployment.service) == row.service)
        data = {"revision": row.revision, "slot": row.slot, "status": row.status}
        append_event(
            session, self.sluice.clock.now(), f"instance_{row.status}", f"{row.id} is {row.status}",
            deployment=session.exec(mine).one(), service=row.service, instance=row.id, data=data,
        )  # fmt: skip

    def _service(self, session: Session, name: str, replicas: int, fields: dict[str, Any]) -> None:
        now = self.sluice.clock.now()
        self._ports += 1
        session.add(
            Service(name=name, replicas=replicas, revision=1, next_revision=2, internal_port=self._ports, created_at=now)
        )
        session.flush()
        session.add(_revision(name, 1, now, fields))
        session.add_all(_instance(name, 1, slot, 0, now, "serving") for slot in range(1, replicas + 1))

    def _deployment(self, session: Session, service: str, fields: dict[str, Any]) -> int:
        now = self.sluice.clock.now()
        row = Deployment(
            service=service,
            created_at=now,
            **{
                "kind": "deploy",
                "status": "progressing",
                "message": "0 of 3 new instances serve",
                "revision": 2,
                "from_revision": 1,
                "image": f"{service}:2",
                "note": "3f2a9c1",
                "created_by_name": "ci",
                "started_at": now,
                "progress": {"desired": 3, "ready": 0, "serving": 0, "old_serving": 3, "draining": 0, "failed": 0},
                "traffic": [{"revision": 1, "percent": 100}],
                **fields,
            },
        )
        session.add(row)
        session.flush()
        assert row.id is not None
        session.add(_revision(service, 2, now, {}))
        session.get_one(Service, service).next_revision = 3
        session.add_all(_instance(service, 2, slot, row.id, now, "starting") for slot in range(1, 4))
        append_event(session, now, "created", "deploy requested by ci", deployment=row.id, service=service)
        return row.id


def _build(session: Session, service: str, now: float, fields: dict[str, Any]) -> int:
    row = Build(
        service=service,
        **{
            "status": "succeeded", "image": f"{service}:20261128-231502-{len(service):04x}", "image_id": "sha256:built",
            "dockerfile": "Dockerfile", "created_by_kind": "token", "created_by_name": "ci", "created_at": now - 40,
            "started_at": now - 40, "finished_at": now, "log": "Step 1/1 : FROM debian:trixie-slim\nSuccessfully built\n",
            **fields,
        },
    )  # fmt: skip
    row.message = row.message or f"built as {row.image}"
    session.add(row)
    session.flush()
    assert row.id is not None
    return row.id


def _revision(service: str, number: int, now: float, fields: dict[str, Any]) -> Revision:
    effective = {"image": f"{service}:{number}", "routes": [{"path_prefix": f"/{service}"}]}
    known: dict[str, Any] = {
        "image": f"{service}:{number}",
        "image_id": f"sha256:{number}",
        "port": 8080,
        "hash": f"h{number}",
        "effective": effective,
        "served": number == 1,
        **fields,
    }
    return Revision(service=service, number=number, deployment=0, created_at=now, **known)


def _instance(service: str, revision: int, slot: int, deployment: int, now: float, status: str) -> Instance:
    return Instance(
        id=f"{service}-r{revision}-{slot}",
        service=service,
        revision=revision,
        deployment=deployment,
        slot=slot,
        address=f"10.203.{revision}.{slot}",
        port=8080,
        hash=f"h{revision}",
        status=status,
        created_at=now,
        ready_at=now if status == "serving" else None,
    )
