"""Activation of pending deployments.

An activation pulls the image, creates the revision, and supersedes the running deployment.
"""

from __future__ import annotations

from sqlmodel import Session, col, select

from services.clock import Clock
from services.engine.port import Engine, EngineError, ImageInfo
from services.errors import RequestError
from services.grant import Grant
from services.rollouts.planner.steps import Failed
from services.rollouts.requests.admission import AdmissionRules
from services.rollouts.requests.image_warnings import image_warnings
from services.rollouts.requests.new_revision import set_revision
from services.rollouts.requests.ownership import unmanaged_volume
from services.rollouts.requests.pull_credentials import PullCredentials
from services.rollouts.requests.revision_image import ensure_image, revision_to_start
from services.rollouts.requests.spec_errors import invalid
from services.rollouts.requests.validation import (
    current_revision,
    effective_replicas,
    existing_unmanaged_volume,
    merge,
    stored_errors,
    validate,
)
from services.rollouts.state.dependencies import failed_dependency
from services.rollouts.state.revision_spec import revision_spec
from services.rollouts.state.service_snapshot import ACTIVE
from services.rollouts.state.status import APPLIES_TO_CURRENT_REVISION, Kind, Status
from services.rollouts.state.transitions import StateWriter
from services.store.database import Store
from services.store.tables import Deployment, Revision, Service


class DeploymentActivator:
    """Activator of pending deployments: each becomes progressing, or ends if it cannot begin."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        engine: Engine,
        writer: StateWriter,
        rules: AdmissionRules,
        credentials: PullCredentials,
    ) -> None:
        self._store = store
        self._clock = clock
        self._engine = engine
        self._writer = writer
        self._rules = rules
        self._credentials = credentials

    async def pull_and_activate(self, id: int) -> None:
        """Pull the deployment's image if it needs one, and activate the deployment.

        Raises EngineError if the engine does not answer; the call is then repeated later.
        """
        failed = await self._store.read(lambda session: _dependency_failed(session, id))
        if failed is not None:
            await self._store.write(lambda session: self.refuse(session, id, failed))
            return
        refused = await self._unmanaged_volume(id)
        if refused is not None:
            await self._store.write(lambda session: self.refuse(session, id, refused))
            return
        kind, reference = await self._store.read(lambda session: self._kind_and_image(session, id))
        if kind != Kind.DEPLOY or reference is None:
            await self._activate_stored(id)
            return
        while reference is not None:
            reference = await self._pull_once(id, reference)
        self._credentials.forget(id)

    async def _activate_stored(self, id: int) -> None:
        """Activate a deployment of a stored revision; pull its image again if the engine has lost it."""
        revision = await self._store.read(lambda session: revision_to_start(session, session.get_one(Deployment, id)))
        if revision is None:
            await self._store.write(lambda session: self.activate(session, id))
            return
        try:
            image = await ensure_image(self._engine, revision)
        except EngineError as error:
            if error.transient:
                raise
            failed = Failed(error.reason, str(error))
            await self._store.write(lambda session: self.refuse(session, id, failed))
            return

        def apply(session: Session) -> None:
            self.warn_of_image(session, id, image, revision)
            self.activate(session, id)

        await self._store.write(apply)

    def warn_of_image(self, session: Session, id: int, image: ImageInfo, revision: Revision) -> None:
        """Add the warnings about a stored revision's image to a pending deployment."""
        deployment = session.get_one(Deployment, id)
        if deployment.status == Status.PENDING and deployment.kind != Kind.SCALE:
            for code, text in image_warnings(image, revision_spec(revision)):
                self._writer.warn(session, deployment, code, text)

    async def _unmanaged_volume(self, id: int) -> Failed | None:
        """Check a bound token's deploy for volumes that were made outside of Sluice since it was requested."""
        deployment = await self._store.read(lambda session: session.get_one(Deployment, id))
        if deployment.kind != Kind.DEPLOY or deployment.bound_to is None:
            return None
        volume = await existing_unmanaged_volume(self._store, self._engine, self._rules, deployment)
        return Failed("invalid_spec", f"volumes: {unmanaged_volume(volume)}") if volume is not None else None

    async def _pull_once(self, id: int, reference: str) -> str | None:
        """Pull `reference` and activate the deployment. Return another reference to pull, as `activate` does."""
        try:
            image = await self._engine.pull(reference, self._credentials.get(id))
        except EngineError as error:
            if error.transient:
                raise
            failed = Failed(error.reason, f"{reference}: {error}")
            await self._store.write(lambda session: self.refuse(session, id, failed))
            return None
        return await self._store.write(lambda session: self.activate(session, id, image, reference))

    def _kind_and_image(self, session: Session, id: int) -> tuple[str, str | None]:
        """Return the deployment's kind, and its image after a merge over the current spec."""
        deployment = session.get_one(Deployment, id)
        if deployment.kind != Kind.DEPLOY:
            return deployment.kind, None
        current = current_revision(session, session.get_one(Service, deployment.service))
        try:
            return deployment.kind, merge(self._rules, current, deployment).spec.image
        except RequestError:
            return deployment.kind, deployment.image  # `activate` reports the error

    def activate(
        self, session: Session, id: int, image: ImageInfo | None = None, reference: str | None = None
    ) -> str | None:
        """Make a pending deployment progressing, in the caller's transaction.

        `image` is the image found for `reference`, if the deployment is a deploy. Returns the reference to pull instead if
        the current spec has changed since, or else None.
        """
        deployment = session.get_one(Deployment, id)
        if deployment.status != Status.PENDING:
            return None
        service = session.get_one(Service, deployment.service)
        current = current_revision(session, service)
        if deployment.kind != Kind.REMOVE and deployment.kind != Kind.DEPLOY and current is None:
            self.refuse(session, id, Failed("never_deployed", f"{service.name} was removed"))
            return None
        if image is not None:
            try:
                validated = validate(session, self._rules, current, deployment)
            except RequestError as error:
                self.refuse(session, id, Failed("invalid_spec", error.detail))
                return None
            if validated.spec.image != reference:
                return validated.spec.image
            failed = set_revision(session, self._writer, deployment, current, validated, image)
            if failed is not None:
                self.refuse(session, id, failed)
                return None
        if deployment.kind in APPLIES_TO_CURRENT_REVISION and current is not None:
            _apply_current_revision(deployment, current)
        if deployment.kind in (Kind.ROLLBACK, Kind.RESTART):
            deployment.replicas = effective_replicas(session, service.name, id)
        if deployment.kind not in (Kind.DEPLOY, Kind.REMOVE) and (disallowed := self._disallowed(session, deployment)):
            self.refuse(session, id, disallowed)
            return None
        deployment.from_revision = service.revision
        deployment.from_replicas = service.replicas if service.revision is not None else 0
        superseded = session.exec(
            select(Deployment).where(Deployment.service == service.name, col(Deployment.status).in_(ACTIVE))
        ).all()
        self._writer.lease(deployment)
        if not superseded and self._is_unchanged(deployment, service):
            self._writer.transition(session, deployment, Status.SUCCEEDED, "nothing to change", reason="unchanged")
            return None
        for other in superseded:
            self._writer.supersede(session, other, id)
        session.flush()
        now = self._clock.now()
        deployment.started_at = now
        revision = session.get(Revision, (service.name, deployment.revision)) if deployment.revision is not None else None
        deployment.deadline_at = now + (revision_spec(revision).progress_deadline_seconds if revision else 300.0)
        self._writer.transition(session, deployment, Status.PROGRESSING, _progress_message(deployment))
        return None

    def _disallowed(self, session: Session, deployment: Deployment) -> Failed | None:
        """Check the stored spec that comes into force again. A scale-in needs no permission."""
        service, replicas = session.get_one(Service, deployment.service), deployment.replicas or 0
        if deployment.kind == Kind.SCALE and replicas <= service.replicas:
            return None
        revision = session.get_one(Revision, (deployment.service, deployment.revision))
        grant = Grant.from_json(deployment.bound_to)
        current = current_revision(session, service)
        errors = stored_errors(session, self._rules, grant, revision, current, replicas)
        return Failed("invalid_spec", invalid(errors).detail) if errors else None

    def refuse(self, session: Session, id: int, failed: Failed) -> None:
        """End a pending deployment that cannot begin."""
        deployment = session.get_one(Deployment, id)
        if deployment.status != Status.PENDING:
            return
        service = session.get_one(Service, deployment.service)
        deployment.from_revision, deployment.from_replicas = service.revision, service.replicas
        self._writer.lease(deployment)
        first = service.revision is None
        after = "nothing was started"
        if not first:
            after += f"; revision {service.revision} {'keeps serving' if service.replicas else 'stays, with 0 instances'}"
        status = Status.FAILED if first else Status.ROLLED_BACK
        self._writer.transition(session, deployment, status, f"{failed.message}; {after}", reason=failed.reason)

    def _is_unchanged(self, deployment: Deployment, service: Service) -> bool:
        if deployment.kind in (Kind.RESTART, Kind.REMOVE) or service.revision is None:
            return False
        return deployment.revision == service.revision and deployment.replicas == service.replicas


def _dependency_failed(session: Session, id: int) -> Failed | None:
    other = failed_dependency(session, session.get_one(Deployment, id))
    if other is None:
        return None
    outcome = "was removed" if other.kind == Kind.REMOVE else other.status.replace("_", " ")
    return Failed(
        "dependency_failed", f"dependency {other.service} failed: its deployment {other.id} {outcome}: {other.message}"
    )


def _apply_current_revision(deployment: Deployment, current: Revision) -> None:
    """Set a scale's or restart's revision to the revision that is current when the deployment begins.

    The revision may differ from the one at the time of the request, because the deployment may have waited for another one.
    """
    spec = revision_spec(current)
    deployment.revision, deployment.profile = current.number, current.profile
    deployment.image, deployment.image_id = current.image, current.image_id
    deployment.strategy = spec.effective_strategy
    deployment.failure_action = spec.failure_action


def _progress_message(deployment: Deployment) -> str:
    if deployment.kind == Kind.REMOVE:
        return "draining and removing its instances"
    if deployment.kind == Kind.SCALE:
        return f"from {deployment.from_replicas} to {deployment.replicas} instances"
    return f"0 of {deployment.replicas} new instances serve"
