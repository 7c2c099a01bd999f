"""The commands that create a deployment, one function for each kind.

A command is only data: `Submitter.submit` makes its deployment, `DryRun.preview` shows the effect.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial

from services.errors import FieldError, RequestError, prefix_fields
from services.rollouts.requests.command import (
    Command,
    CommandTransaction,
    DeployRequest,
    GroupMember,
    MergeMode,
    PrecheckContext,
)
from services.rollouts.requests.engine_checks import check_engine_resources
from services.rollouts.requests.lookup import (
    check_allowed,
    get_current_revision,
    get_deployment,
    get_service,
    rollback_target,
)
from services.rollouts.requests.new_deployment import deploy_row, insert_deployment, insert_service, revision_row
from services.rollouts.requests.route_conflicts import shared_routes
from services.rollouts.requests.spec_errors import invalid
from services.rollouts.requests.validation import (
    current_revision,
    effective_replicas,
    exclusive_volume_conflict,
    stored_errors,
    validate,
)
from services.rollouts.state.dependencies import next_group
from services.rollouts.state.revision_spec import revision_spec
from services.rollouts.state.status import APPLIES_TO_CURRENT_REVISION, Kind
from services.rollouts.state.transitions import StateWriter
from services.store.tables import Deployment, Revision, Service
from services.text_forms import SERVICE_NAME

REPEATED_FIELDS = (
    "service", "kind", "body", "mode", "profile_named", "profile", "on_conflict", "replicas", "strategy", "image", "note",
)  # fmt: skip
"""Fields of a deployment that its retry has too."""
REPEATED_REVISION_FIELDS = ("revision", "image_id", "failure_action")
"""Fields that the retry of a deployment without a spec of its own has too."""


def deploy(deploy_request: DeployRequest) -> Command:
    """Deploy a new or changed spec.

    Refused with 422 `invalid_spec` (its errors name the fields), 409 `revision_conflict`, 409 `deployment_in_progress`.
    """
    return Command(
        deploy_request.service,
        partial(_deploy, deploy_request),
        precheck=partial(check_engine_resources, deploy_request),
    )


def deploy_group(members: Sequence[GroupMember]) -> Command:
    """Deploy several specs, all or none. The command's deployment is the group's first.

    Refused with 422 `invalid_spec` (each field is prefixed by its service's name), and 409 as a single deployment.
    """

    async def precheck(context: PrecheckContext) -> None:
        for member in members:
            with prefix_fields(member.deploy_request.service):
                await check_engine_resources(member.deploy_request, context)

    return Command(members[0].deploy_request.service, partial(_deploy_group, members), precheck)


def scale(service: str, replicas: int) -> Command:
    """Change the number of replicas.

    Refused with 404 `unknown_service`, 422 `invalid_spec` (for instance if the volumes allow one instance only).
    """

    def apply(transaction: CommandTransaction) -> int:
        session = transaction.session
        current = get_current_revision(session, service)
        if why := exclusive_volume_conflict(revision_spec(current), replicas):
            raise invalid([FieldError("replicas", why)])
        if replicas > session.get_one(Service, service).replicas:
            _check_stored_spec(transaction, current, current, replicas)
        row = revision_row(transaction, current, Kind.SCALE)
        row.replicas = replicas
        return insert_deployment(transaction, row)

    return Command(service, apply)


def rollback(service: str, to_revision: int | None) -> Command:
    """Roll back to `to_revision`, or else to the newest earlier revision that served.

    Refused with 404 `unknown_service`, 422 `unknown_revision`, 409 `no_rollback_target`.
    """

    def apply(transaction: CommandTransaction) -> int:
        current = get_current_revision(transaction.session, service)
        target = rollback_target(transaction.session, current, to_revision)
        _check_stored_spec(transaction, target, current)
        return insert_deployment(transaction, revision_row(transaction, target, Kind.ROLLBACK))

    return Command(service, apply)


def restart(service: str) -> Command:
    """Replace all instances by new ones of the same revision. Refused with 404 `unknown_service`."""

    def apply(transaction: CommandTransaction) -> int:
        current = get_current_revision(transaction.session, service)
        _check_stored_spec(transaction, current, current)
        return insert_deployment(transaction, revision_row(transaction, current, Kind.RESTART))

    return Command(service, apply)


def remove(service: str) -> Command:
    """Remove a service, which may be one whose first deployment never succeeded.

    Raises RequestError 404 `unknown_service`.
    """

    def apply(transaction: CommandTransaction) -> int:
        removed = get_service(transaction.session, service)
        row = Deployment(service=service, kind=Kind.REMOVE, created_at=transaction.clock.now(), replicas=0)
        row.revision = removed.revision
        return insert_deployment(transaction, row)

    return Command(service, apply)


def retry(deployment: Deployment) -> Command:
    """Repeat a deployment that ended without success. Its row is read again when the command is applied.

    Refused with 404 `unknown_deployment`, 409 `not_in_that_state`.
    """
    apply = partial(_retry, deployment.id or 0)
    if deployment.kind != Kind.DEPLOY:
        return Command(deployment.service, apply)
    return Command(deployment.service, apply, precheck=deploy(repeated_request(deployment)).precheck)


def repeated_request(deployment: Deployment) -> DeployRequest:
    """Return the request that the retry of a deployment of kind `deploy` repeats."""
    mode: MergeMode = "replace" if deployment.mode == "replace" else "merge"
    return DeployRequest(deployment.service, deployment.body, mode, deployment.profile_named, deployment.profile)


def _deploy(deploy_request: DeployRequest, transaction: CommandTransaction) -> int:
    session, name = transaction.session, deploy_request.service
    if not re.fullmatch(SERVICE_NAME, name):
        why = "must be a DNS label of at most 40 characters (a-z, 0-9, -) that starts with a letter"
        raise invalid([FieldError("service", why)])
    service = session.get(Service, name)
    current = current_revision(session, service)
    _check_expected_revision(deploy_request, service, current)
    row = deploy_row(deploy_request, created_at=transaction.clock.now())
    row.bound_to = transaction.bound_to
    validated = validate(session, transaction.rules, current, row)
    row.on_conflict = str(validated.spec.on_conflict)
    row.image = validated.spec.image
    row.strategy = validated.spec.effective_strategy
    row.replicas = validated.replicas if validated.replicas is not None else effective_replicas(session, name)
    if service is None:
        insert_service(transaction, name)
    return insert_deployment(transaction, row)


def _deploy_group(members: Sequence[GroupMember], transaction: CommandTransaction) -> int:
    session, writer = transaction.session, StateWriter(transaction.clock, 0)
    rows: dict[str, Deployment] = {}
    errors: list[FieldError] = []
    group = next_group(session)
    for member in members:
        try:
            with prefix_fields(member.deploy_request.service):
                row = session.get_one(Deployment, _deploy(member.deploy_request, transaction))
        except RequestError as error:
            if error.status != 422:
                raise
            errors += error.errors
            continue
        known = {name: required for name, required in member.depends_on.items() if name in rows}
        row.group = group
        row.depends_on = [{"deployment": rows[name].id, "required": required} for name, required in known.items()]
        if known:
            row.message = f"waits for {', '.join(known)}"
        for warning in member.warnings:
            writer.warn(session, row, "compose", warning)
        rows[member.deploy_request.service] = row
    errors += shared_routes([member.deploy_request for member in members])
    if errors:
        raise invalid(errors)
    return next(iter(rows.values())).id or 0


def _retry(deployment: int, transaction: CommandTransaction) -> int:
    session = transaction.session
    before = get_deployment(session, deployment)
    check_allowed(before, "retry")
    names = REPEATED_FIELDS if before.kind == Kind.DEPLOY else REPEATED_FIELDS + REPEATED_REVISION_FIELDS
    row = Deployment(**{name: getattr(before, name) for name in names}, created_at=transaction.clock.now())
    row.retry_of = before.id
    if before.kind == Kind.DEPLOY:
        row.bound_to = transaction.bound_to
        service = session.get(Service, before.service)
        validate(session, transaction.rules, current_revision(session, service), row)
    elif before.kind == Kind.REMOVE:
        get_service(session, before.service)
    else:
        current = get_current_revision(session, before.service)
        own = session.get_one(Revision, (before.service, before.revision))
        _check_stored_spec(
            transaction, current if before.kind in APPLIES_TO_CURRENT_REVISION else own, current, before.replicas
        )
    return insert_deployment(transaction, row)


def _check_stored_spec(
    transaction: CommandTransaction, revision: Revision, current: Revision, replicas: int | None = None
) -> None:
    """Raise RequestError 422 `invalid_spec` for a stored spec that cannot come into force again.

    The spec is checked for `replicas` instances, by default for the service's size.
    """
    session, rules, grant = transaction.session, transaction.rules, transaction.by.grant
    size = replicas if replicas is not None else effective_replicas(session, revision.service)
    if errors := stored_errors(session, rules, grant, revision, current, size):
        raise invalid(errors)


def _check_expected_revision(deploy_request: DeployRequest, service: Service | None, current: Revision | None) -> None:
    """Raise RequestError 409 `revision_conflict` if the service is not at the expected revision."""
    expected, name = deploy_request.expected_revision, deploy_request.service
    if expected is None:
        return
    if expected == 0 and service is not None and not service.removed:
        raise RequestError(409, "revision_conflict", f'expected no service "{name}", but it exists')
    if expected and expected != (current.number if current else None):
        now = f"at revision {current.number}" if current else "not deployed"
        raise RequestError(409, "revision_conflict", f"expected revision {expected}, but {name} is {now}")
