"""The spec and the health check of a stored revision."""

from __future__ import annotations

from services.spec import Healthcheck, ServiceSpec
from services.store.tables import Revision


def revision_spec(revision: Revision) -> ServiceSpec:
    return ServiceSpec.model_validate(revision.effective)


def revision_healthcheck(revision: Revision) -> Healthcheck:
    """Return the health check that was resolved when the revision was created."""
    fields = dict(revision.healthcheck)
    below = fields.pop("any_below_500", False)
    return Healthcheck.model_validate(fields).model_copy(update={"any_below_500": below})


def uses_engine_health(check: Healthcheck, port: int | None) -> bool:
    """Return whether the engine decides readiness: by the container's own `test`, or by the running state.

    The running state decides if the check is disabled or if there is nothing to probe.
    """
    return check.test is not None or check.disable or (port is None and check.path is None and not check.tcp)
