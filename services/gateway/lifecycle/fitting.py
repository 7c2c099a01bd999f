"""Selection of services that fit together in one gateway, if not all of them do."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import structlog

from services.gateway.config.model import DesiredBackend
from services.routing.port import RoutingError

log = structlog.get_logger(__name__)


def fitting(
    wanted: Mapping[str, DesiredBackend],
    before: Mapping[str, DesiredBackend],
    render: Callable[[Mapping[str, DesiredBackend]], object],
) -> dict[str, DesiredBackend]:
    """Return the services that `render` accepts together without a RoutingError.

    A service that does not fit stays as it was `before`, or is left out: it must not keep all others from the gateway.
    """
    try:
        render(wanted)
    except RoutingError:
        pass
    else:
        return dict(wanted)
    old = {name: DesiredBackend(before[name].service, each.endpoints) for name, each in wanted.items() if name in before}
    fit: dict[str, DesiredBackend] = {}
    for name in sorted(wanted, key=lambda name: (old.get(name) != wanted[name], name)):
        for each in filter(None, (wanted[name], old.get(name))):
            try:
                render({**fit, name: each})
            except RoutingError as error:
                log.warning("service_does_not_fit", service=name, error=str(error))
            else:
                fit[name] = each
                break
    return fit
