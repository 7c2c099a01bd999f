"""The engine's specification of an instance, from the rows of the instance and its revision."""

from __future__ import annotations

from services.engine.port import InstanceSpec
from services.rollouts.requests.admission import AdmissionRules
from services.rollouts.requests.log_drivers import log_config
from services.rollouts.state.revision_spec import revision_healthcheck, revision_spec
from services.spec import ContainerFields, ServiceSpec
from services.store.tables import Instance, Revision

EUREKA_INSTANCE_ID_ENV = "EUREKA_INSTANCE_INSTANCE_ID"
"""The environment variable that makes Spring's Eureka client register under the id of its instance."""


def instance_spec(row: Instance, revision: Revision, rules: AdmissionRules, link_address: str) -> InstanceSpec:
    """Return the specification of an instance's container.

    The operator's aliases and the spec's links resolve to `link_address`.
    """
    spec = revision_spec(revision)
    return InstanceSpec(
        id=row.id,
        service=row.service,
        revision=row.revision,
        deployment=row.deployment,
        slot=row.slot,
        hash=row.hash,
        image_id=revision.image_id,
        address=row.address,
        port=row.port,
        fields=_with_eureka_id(spec, row.id),
        host_port=row.host_port,
        healthcheck=revision_healthcheck(revision),
        logging=log_config(rules.log_drivers, spec.logging),
        hosts=dict.fromkeys([*rules.aliases, *spec.links], link_address),
    )


def _with_eureka_id(spec: ServiceSpec, instance: str) -> ContainerFields:
    """Add the instance's id to the environment if the spec names an external Eureka server."""
    if spec.eureka is None:
        return spec
    return spec.model_copy(update={"environment": {EUREKA_INSTANCE_ID_ENV: instance, **spec.environment}})
