"""Warnings about an image: the registry could not be reached, or the image's data is kept nowhere."""

from __future__ import annotations

import posixpath

from services.engine.port import ImageInfo
from services.spec import ServiceSpec

MAX_VOLUMES = 10
"""Paths that a warning names at most."""


def image_warnings(image: ImageInfo, spec: ServiceSpec) -> list[tuple[str, str]]:
    """Return the warnings, as (code, message), of a deployment of the spec with the image."""
    warnings = []
    if image.not_pulled:
        text = f"{image.reference} was not pulled, so the engine's copy is used, which may be older: {image.not_pulled}"
        warnings.append(("image_not_pulled", text))
    if uncovered := uncovered_volumes(image, spec):
        more = f" and {len(uncovered) - MAX_VOLUMES} more" if len(uncovered) > MAX_VOLUMES else ""
        paths = f"{', '.join(uncovered[:MAX_VOLUMES])}{more}"
        text = f"the image keeps data in {paths}, which no mount covers: it is lost with each instance; add volumes"
        warnings.append(("volume_not_kept", text))
    return warnings


def uncovered_volumes(image: ImageInfo, spec: ServiceSpec) -> list[str]:
    """Return the VOLUME paths of the image that are no mount's target.

    A mount of a directory above does not cover such a path: the engine mounts an anonymous volume over it.
    """
    targets = {posixpath.normpath(mount.target) for mount in spec.volumes}
    return [path for path in image.volumes if posixpath.normpath(path) not in targets]
