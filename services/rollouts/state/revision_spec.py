"""The spec and the health check of a stored revision."""

from __future__ import annotations

from services.spec import Healthcheck, ServiceSpec
from services.store.tables import Revision


def revision_spec(revision: Revision) -> ServiceSpec:
    return ServiceSpec.model_validate(revision.effective)


def revision_healthcheck(revision: Revision) -> Healthcheck:
    """As resolved when the revision was made."""
    fields = dict(revision.healthcheck)
    below = fields.pop("any_below_500", False)
    return Healthcheck.model_validate(fields).model_copy(update={"any_below_500": below})


def uses_engine_health(check: Healthcheck, port: int | None) -> bool:
    """Readiness is what the engine says: by the container's own test, or by running when there is nothing to ask."""
    return check.test is not None or check.disable or (port is None and check.path is None and not check.tcp)
