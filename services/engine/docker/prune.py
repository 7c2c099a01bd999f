"""Removal of images that nobody needs any more, and of no others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import docker
from docker.errors import APIError

from services.engine.docker.codec import BUILT, NAME


def prune(client: docker.APIClient, name: str, keep: frozenset[str]) -> tuple[str, ...]:
    """Blocks. Removes what the Sluice called `name` built and does not keep. Returns the tags that went."""
    found: Any = client.images(filters={"label": [f"{NAME}={name}", BUILT]})
    gone = []
    for image in found:
        tag = _own_tag(image)
        if tag is None or tag in keep:
            continue
        try:
            client.remove_image(tag)
        except APIError as error:
            if error.status_code not in (404, 409):  # gone already, or a container uses it
                raise
        else:
            gone.append(tag)
    return tuple(sorted(gone))


def _own_tag(image: Mapping[str, Any]) -> str | None:
    """The tag that Sluice gave to an image that it built, when that is the only one.

    The label alone proves nothing: images made from ours (`FROM`, `docker commit`) inherit it. They have other tags, or
    none. An image with a tag besides its own is somebody's.
    """
    tag = (image.get("Labels") or {}).get(BUILT)
    return tag if tag and image.get("RepoTags") == [tag] else None
