"""Dry runs of commands: the command is applied and activated, and the transaction is rolled back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

import anyio.to_thread
from sqlmodel import Session, col, select

from services.actor import Actor
from services.clock import Clock
from services.engine.port import IMAGE_GONE, ContainerView, Engine, EngineError, ImageInfo
from services.errors import RequestError
from services.rollouts.planner.steps import Failed
from services.rollouts.requests.activation import DeploymentActivator
from services.rollouts.requests.admission import AdmissionRules
from services.rollouts.requests.command import Command, CommandTransaction, PrecheckContext
from services.rollouts.requests.preview import PlanInput, Preview
from services.rollouts.requests.pull_credentials import PullCredentials
from services.rollouts.requests.revision_image import revision_to_start, unpullable
from services.rollouts.requests.spec_diff import comparable_spec, diff_specs
from services.rollouts.requests.validation import current_revision
from services.rollouts.state.planner_inputs import desired_state, observe_instances
from services.rollouts.state.queue import supersedes
from services.rollouts.state.recognition import recognized
from services.rollouts.state.service_snapshot import ACTIVE, load_service
from services.rollouts.state.status import Kind, Status
from services.rollouts.state.transitions import StateWriter
from services.routing.port import EndpointState, Router, RoutingError
from services.store.database import Store
from services.store.tables import Deployment, Revision, Service

REFUSED = frozenset({Status.FAILED, Status.ROLLED_BACK})
"""The statuses of a deployment that ends before it begins, because it cannot begin."""
PreviewAndInput = tuple[Preview, PlanInput | None]
"""A preview without its steps, and the planner's input; None if there is nothing to do."""


class DryRun:
    """Previews commands: it raises the errors of the real request and writes nothing."""

    def __init__(self, store: Store, clock: Clock, engine: Engine, routers: Sequence[Router], rules: AdmissionRules) -> None:
        self._store = store
        self._clock = clock
        self._engine = engine
        self._routers = routers
        self._rules = rules
        self._activator = DeploymentActivator(store, clock, engine, StateWriter(clock, 0), rules, PullCredentials())

    async def preview(self, command: Command, by: Actor) -> Preview:
        """Return the preview of the command as requested by `by`.

        Raises RequestError: those of the command, and 503 `engine_unavailable` if the engine or a router cannot be observed.
        """
        await command.precheck(PrecheckContext(self._store, self._engine, self._rules, by))
        try:
            containers = await self._engine.observe(command.service)
            endpoint_states = [await router.observe(command.service) for router in self._routers]
            plan_input = partial(_plan_input, containers, endpoint_states)
            preview, planner_input = await self._run_and_roll_back(command, by, plan_input)
        except (EngineError, RoutingError) as error:
            raise RequestError(503, "engine_unavailable", f"cannot observe the current state: {error}") from error
        if planner_input is None:
            return preview
        return await anyio.to_thread.run_sync(planner_input.with_steps, preview, self._clock.now())

    async def _run_and_roll_back(
        self, command: Command, by: Actor, plan_input: Callable[[Session, Deployment], PlanInput | None]
    ) -> PreviewAndInput:
        """Create and activate the deployment, return its preview and planner input, and roll back.

        The first run only finds out which image the engine must be asked for.
        """
        reference: str | None = None
        image: ImageInfo | None = None

        def apply(session: Session) -> PreviewAndInput | str:
            id = command.apply(CommandTransaction(session, self._clock, self._rules, by))
            row = session.get_one(Deployment, id)
            current = current_revision(session, session.get(Service, row.service))
            warnings = _conflict_warnings(session, row)
            used = image
            stored = revision_to_start(session, row)
            if reference is None and (row.kind == Kind.DEPLOY or stored is not None):
                return (stored.image_id if stored is not None else row.image) or ""
            if stored is not None:
                warnings += self._stored_image(session, id, stored, used)
                used = None
            elif reference is not None and used is None:
                text = f"{reference} is not on this host yet; it will be pulled, and is assumed to differ"
                warnings.append({"code": "image_not_here", "message": text})
                used = _placeholder_image(reference, current)
            other_reference = self._activator.activate(session, id, used, reference)
            if other_reference is not None:
                return other_reference
            session.flush()
            preview = _preview(session, row, current)
            warnings += _refusal(row)
            return replace(preview, warnings=[*warnings, *preview.warnings]), plan_input(session, row)

        while isinstance(result := await self._store.run_and_roll_back(apply), str):
            reference, image = result, await self._engine.find_image(result)
        return result

    def _stored_image(self, session: Session, id: int, revision: Revision, image: ImageInfo | None) -> list[dict[str, str]]:
        """Apply what the deployment of a stored revision finds of its image, and return further warnings.

        `image` is None if the engine has lost it. The deployment is refused if no registry is known to have it.
        """
        if image is not None:
            self._activator.warn_of_image(session, id, image, revision)
        elif revision.image_digest is None:
            self._activator.refuse(session, id, Failed(IMAGE_GONE, unpullable(revision)))
        else:
            text = (
                f"{revision.image} (revision {revision.number}) is not on this host; it is pulled as {revision.image_digest}"
            )
            return [{"code": "image_not_here", "message": text}]
        return []


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
    return [{"code": "waits", "message": f"waits for {other}; the steps are simulated as if it started now"}]


def _refusal(row: Deployment) -> list[dict[str, str]]:
    """Return a warning with the reason why the deployment would end before it begins, if any."""
    if row.status not in REFUSED:
        return []
    return [{"code": row.reason or row.status, "message": f"the deployment would fail: {row.message}"}]


def _placeholder_image(reference: str, current: Revision | None) -> ImageInfo:
    """Return a stand-in for an image that is not pulled yet.

    It differs from the current image, and exposes the current revision's port.
    """
    ports = (current.port,) if current is not None and current.port is not None else ()
    return ImageInfo("", reference, ports, inspected=False)


def _preview(session: Session, row: Deployment, current: Revision | None) -> Preview:
    """Return the preview without its steps."""
    unchanged = row.status == Status.SUCCEEDED
    wanted = session.get(Revision, (row.service, row.revision)) if row.revision is not None else None
    from_replicas, replicas = row.from_replicas or 0, row.replicas or 0
    old = {**comparable_spec(current), "replicas": from_replicas} if current is not None else {}
    new = {**(old if row.kind == Kind.REMOVE else comparable_spec(wanted)), "replicas": replicas}
    if row.status in REFUSED:
        new = old
    return Preview(
        service=row.service,
        kind=row.kind,
        message=row.message if row.status in REFUSED else "nothing to change",
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
    own = recognized(containers, {row.id: row.container_id for row in snapshot.instances})
    return PlanInput(
        desired=desired_state(snapshot),
        observed=observe_instances(snapshot, own, endpoint_states, {}),
        created={instance.id: instance.revision for instance in snapshot.instances},
        service=row.service,
        revision=wanted.number if wanted is not None else 0,
        next_instance=wanted.next_instance if wanted is not None else 1,
        routed=wanted is not None and wanted.port is not None,
    )
