"""Defaults that an image gives to a spec: the port and the health check."""

from __future__ import annotations

from dataclasses import dataclass

from services.engine.port import ImageInfo
from services.spec import Healthcheck, ServiceSpec

DEFAULT_LINK_PORT = 8080
"""Port by which `links` reach a service whose instances listen on allocated host ports."""


@dataclass(frozen=True)
class ResolvedImage:
    """The port and the health check of a spec after the image's defaults are applied.

    `unknown_port` says why the image decides no port, although the spec leaves the port to it; empty otherwise.
    """

    image: ImageInfo
    port: int | None
    healthcheck: Healthcheck
    unknown_port: str = ""
    warnings: tuple[tuple[str, str], ...] = ()


def resolve_image_defaults(
    spec: ServiceSpec, port_named: bool, image: ImageInfo, previous_port: int | None = None
) -> ResolvedImage:
    """Return a spec's port and health check with the image's defaults for both (docs/api.md).

    `port_named` says whether the spec gives `port`, null included. `previous_port` is the port of the current revision; it
    stays if the image exposes it among others. The function is pure.
    """
    warnings = []
    port, unknown_port = spec.port, ""
    if not port_named:
        port = image.exposed_ports[0] if len(image.exposed_ports) == 1 else None
        exposed = f"several ports ({', '.join(map(str, image.exposed_ports))})" if image.exposed_ports else "no TCP port"
        if port is None and spec.host_port is not None:
            port = DEFAULT_LINK_PORT
        elif port is None:
            port = previous_port if previous_port in image.exposed_ports else None
            unknown_port = f"the image exposes {exposed} and port is not set" if port is None else ""
            role = "it runs as a worker without requests" if port is None else f"port {port} stays, as before"
            if image.exposed_ports:
                warnings.append(("port_ambiguous", f"the image exposes {exposed} and port is not set: {role}"))
    check = spec.healthcheck
    if check is None and image.healthcheck is not None:
        check = Healthcheck.model_validate({"test": list(image.healthcheck), **image.healthcheck_settings})
    elif check is None and port is None:
        check = Healthcheck(disable=True)
    elif check is None:
        check = Healthcheck().model_copy(update={"any_below_500": True})
        warnings.append(("no_healthcheck", "no healthcheck configured: any answer below 500 on / counts as healthy"))
    return ResolvedImage(image, port, check, unknown_port, tuple(warnings))
