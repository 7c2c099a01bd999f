"""Selection of backends that the gateway can have together, if not all of them do."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import structlog

from services.gateway.config.model import DesiredBackend
from services.routing.port import RoutingError

log = structlog.get_logger(__name__)


def drop_conflicting(
    desired: Mapping[str, DesiredBackend],
    before: Mapping[str, DesiredBackend],
    validate: Callable[[Mapping[str, DesiredBackend]], object],
) -> dict[str, DesiredBackend]:
    """Return the backends that `validate` accepts together without a RoutingError.

    A service whose backend conflicts with the others keeps its settings of `before`, or is left out: it must not keep all
    others from the gateway.
    """
    try:
        validate(desired)
    except RoutingError:
        pass
    else:
        return dict(desired)
    old = {
        name: DesiredBackend(before[name].service, backend.endpoints) for name, backend in desired.items() if name in before
    }
    accepted: dict[str, DesiredBackend] = {}
    for name in sorted(desired, key=lambda name: (old.get(name) != desired[name], name)):
        for candidate in filter(None, (desired[name], old.get(name))):
            try:
                validate({**accepted, name: candidate})
            except RoutingError as error:
                log.warning("service_does_not_fit", service=name, error=str(error))
            else:
                accepted[name] = candidate
                break
    return accepted
