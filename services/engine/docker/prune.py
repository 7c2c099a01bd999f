"""Removal of images that Sluice built and no longer needs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import docker
from docker.errors import APIError

from services.engine.docker.codec import BUILT, NAME


def prune(client: docker.APIClient, name: str, keep: frozenset[str]) -> tuple[str, ...]:
    """Remove the images that the Sluice called `name` built and that are not in `keep`. Blocks.

    Return the removed tags.
    """
    found: Any = client.images(filters={"label": [f"{NAME}={name}", BUILT]})
    removed = []
    for image in found:
        tag = _own_tag(image)
        if tag is None or tag in keep:
            continue
        try:
            client.remove_image(tag)
        except APIError as error:
            if error.status_code not in (404, 409):  # removed already, or in use by a container
                raise
        else:
            removed.append(tag)
    return tuple(sorted(removed))


def _own_tag(image: Mapping[str, Any]) -> str | None:
    """Return the tag that Sluice gave an image it built, if the image has no other tag.

    The label alone proves nothing: images made from such an image (`FROM`, `docker commit`) inherit it. They have
    other tags or none. An image with an additional tag belongs to a user.
    """
    tag = (image.get("Labels") or {}).get(BUILT)
    return tag if tag and image.get("RepoTags") == [tag] else None
