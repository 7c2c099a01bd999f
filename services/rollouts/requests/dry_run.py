"""Dry runs of requests: the real code runs up to the commit, and the transaction is rolled back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

import anyio.to_thread
from sqlmodel import Session, col, select

from services.clock import Clock
from services.engine.port import ContainerView, Engine, EngineError, ImageInfo
from services.errors import RequestError
from services.rollouts.requests.activation import DeploymentActivator
from services.rollouts.requests.admission import AdmissionRules
from services.rollouts.requests.commands import Asking, RequestContext
from services.rollouts.requests.preview import PlanInput, Preview
from services.rollouts.requests.spec_diff import comparable_spec, diff_specs
from services.rollouts.requests.validation import current_revision
from services.rollouts.state.planner_inputs import desired_state, observe_instances
from services.rollouts.state.queue import supersedes
from services.rollouts.state.repository import ACTIVE, load_service
from services.rollouts.state.runtime_status import RuntimeStatus
from services.rollouts.state.status import Kind, Status
from services.rollouts.state.transitions import StateWriter
from services.routing.port import EndpointState, Router, RoutingError
from services.store.database import Store
from services.store.tables import Deployment, Revision, Service

Found = tuple[Preview, PlanInput | None]


class DryRun(Asking[Preview]):
    """Requests that are only previewed.

    Each method raises the errors of the real request and writes nothing. An Idempotency-Key is ignored.
    """

    def __init__(self, store: Store, clock: Clock, engine: Engine, routers: Sequence[Router], rules: AdmissionRules) -> None:
        super().__init__(store, clock, engine, rules)
        self._routers = routers
        self._beginner = DeploymentActivator(store, clock, engine, StateWriter(clock, 0), rules, RuntimeStatus())

    async def _make(self, make: Callable[[Session], int], service: str, context: RequestContext) -> Preview:
        """Return the preview of the request.

        Raises RequestError 503 `engine_unavailable` if the engine or a router cannot be observed.
        """
        try:
            containers = await self._engine.observe(service)
            endpoint_states = [await router.observe(service) for router in self._routers]
            preview, outset = await self._run_and_roll_back(partial(_plan_input, containers, endpoint_states), make)
        except (EngineError, RoutingError) as error:
            raise RequestError(503, "engine_unavailable", f"what is there now cannot be seen: {error}") from error
        if outset is None:
            return preview
        return await anyio.to_thread.run_sync(outset.with_steps, preview, self._clock.now())

    async def _run_and_roll_back(
        self, outset: Callable[[Session, Deployment], PlanInput | None], make: Callable[[Session], int]
    ) -> Found:
        """Create and activate the deployment, return its preview and planner input, and roll back.

        A deploy runs first without an image, to find out which image the engine must be asked for.
        """
        reference: str | None = None
        image: ImageInfo | None = None

        def rehearsal(session: Session) -> Found | str:
            row = session.get_one(Deployment, make(session))
            present = current_revision(session, session.get(Service, row.service))
            warnings = _conflict_warnings(session, row)
            used = image
            if row.kind == Kind.DEPLOY and reference is None:
                return row.image or ""
            if reference is not None and used is None:
                text = f"the engine has no {reference} yet: it is pulled first, and is taken here to be another image"
                warnings.append({"code": "image_not_here", "message": text})
                used = _placeholder_image(reference, present)
            another = self._beginner.activate(session, row.id or 0, used, reference)
            if another is not None:
                return another
            session.flush()
            preview = _preview(session, row, present)
            return replace(preview, warnings=[*warnings, *preview.warnings]), outset(session, row)

        while isinstance(found := await self._store.run_and_roll_back(rehearsal), str):
            reference, image = found, await self._engine.find_image(found)
        return found


def _conflict_warnings(session: Session, row: Deployment) -> list[dict[str, str]]:
    """Return a warning about the deployment in progress: it is superseded, or the new deployment waits."""
    running = session.exec(
        select(Deployment).where(Deployment.service == row.service, col(Deployment.status).in_(ACTIVE))
    ).first()
    if running is None:
        return []
    other = f"deployment {running.id}, which is {running.status}"
    if supersedes(row):
        return [{"code": "supersedes", "message": f"{other}, is superseded"}]
    return [{"code": "waits", "message": f"it waits for the end of {other}; the steps are told as if it began now"}]


def _placeholder_image(reference: str, present: Revision | None) -> ImageInfo:
    """Return a stand-in for an image that is not pulled yet.

    It differs from the current image, and exposes the current revision's port.
    """
    return ImageInfo("", reference, (present.port,) if present is not None and present.port is not None else ())


def _preview(session: Session, row: Deployment, present: Revision | None) -> Preview:
    """Return the preview without its steps."""
    unchanged = row.status == Status.SUCCEEDED
    wanted = session.get(Revision, (row.service, row.revision)) if row.revision is not None else None
    from_replicas, replicas = row.from_replicas or 0, row.replicas or 0
    old = {**comparable_spec(present), "replicas": from_replicas} if present is not None else {}
    new = {**(old if row.kind == Kind.REMOVE else comparable_spec(wanted)), "replicas": replicas}
    return Preview(
        service=row.service,
        kind=row.kind,
        message="nothing to change",
        revision=row.revision,
        from_revision=row.from_revision,
        replicas=replicas,
        from_replicas=from_replicas,
        strategy=row.strategy,
        profile=row.profile,
        image=row.image,
        image_id=row.image_id or None,
        diff=diff_specs(old, new),
        warnings=list(row.warnings),
        unchanged=unchanged,
    )


def _plan_input(
    containers: Sequence[ContainerView],
    endpoint_states: Sequence[Mapping[str, EndpointState]],
    session: Session,
    row: Deployment,
) -> PlanInput | None:
    """Return the planner's input, or None if there is nothing to do."""
    snapshot = load_service(session, row.service)
    if snapshot is None or snapshot.deployment is None:
        return None
    wanted = snapshot.desired_revision
    return PlanInput(
        desired=desired_state(snapshot),
        observed=observe_instances(snapshot, containers, endpoint_states, {}),
        created={instance.id: instance.revision for instance in snapshot.instances},
        service=row.service,
        revision=wanted.number if wanted is not None else 0,
        next_instance=wanted.next_instance if wanted is not None else 1,
        routed=wanted is not None and wanted.port is not None,
    )
