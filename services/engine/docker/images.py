"""Pulls of images, with the credentials of the operator or of the call."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from typing import Any

import docker
from docker.auth import get_config_header, resolve_repository_name
from docker.errors import APIError, DockerException, NotFound
from docker.utils import parse_repository_tag
from docker.utils.json_stream import json_stream
from requests.exceptions import ReadTimeout

from services.engine.docker.client import FAILURES
from services.engine.docker.image_codec import digest_in, parse_image
from services.engine.port import EngineError, ImageInfo

_FIRST_ANSWER_TIMEOUT = 60.0
"""Seconds that a registry may take to start its answer."""
_FIRST_ANSWER_TIMEOUT_IF_PRESENT = 15.0
"""Seconds that a registry may take to start its answer if the image is present already."""
_PROGRESS_TIMEOUT = 600.0
"""Seconds without progress after which a pull is abandoned."""
_UNREACHED_RETRY_AFTER = 60.0
"""Seconds for which a registry that did not answer is not asked again for an image that is present."""
_UNREACHED = (
    "dial tcp",
    "no such host",
    "server misbehaving",
    "connection refused",
    "connection reset",
    "network is unreachable",
    "no route to host",
    "i/o timeout",
    "tls handshake timeout",
    "client.timeout",
    "context deadline exceeded",
    ": eof",
    "unexpected http status: 5",
    "error parsing http 5",
    "did not start to answer",
    "the pull was interrupted",
)
"""Texts of errors that say that the registry did not answer, or has a failure of its own (5xx). All others are refusals."""


class Images:
    """Puller of images, which skips pulls that cannot bring a newer image."""

    def __init__(self) -> None:
        self._silent_until: dict[str, float] = {}

    def pull(self, client: docker.APIClient, reference: str, auth: str | None) -> ImageInfo:
        """Pull an image, blocking. Return the image that is present if the registry cannot be reached.

        Raises EngineError `image_pull_failed` if the registry refuses, or if there is no image to use.
        """
        present = _inspect(client, reference)
        if present is not None and not _may_be_newer(present, reference, auth):
            return parse_image(present, reference)
        registry = _registry(reference)
        if present is not None and auth is None and time.monotonic() < self._silent_until.get(registry, 0):
            why = f"the registry {registry} could not be reached less than {_UNREACHED_RETRY_AFTER:.0f} s ago"
            return replace(parse_image(present, reference), not_pulled=why)
        timeout = _FIRST_ANSWER_TIMEOUT if present is None else _FIRST_ANSWER_TIMEOUT_IF_PRESENT
        error_text, unreached = self._pull_error(client, reference, auth, timeout)
        if present is not None and unreached:
            return replace(parse_image(present, reference), not_pulled=error_text)
        found = _inspect(client, reference) if not error_text else None
        if found is None:
            raise EngineError(error_text or f"{reference} was pulled but not found", reason="image_pull_failed")
        return parse_image(found, reference)

    def find(self, client: docker.APIClient, reference: str) -> ImageInfo | None:
        """Return the image as the engine has it, without contacting a registry.

        None for a malformed reference too.
        """
        try:
            present = _inspect(client, reference)
        except EngineError:
            return None
        return parse_image(present, reference) if present is not None else None

    def _pull_error(self, client: docker.APIClient, reference: str, auth: str | None, timeout: float) -> tuple[str, bool]:
        """Pull the image. Return the error text (empty on success), and whether the registry was not reached.

        The SDK's own pull has no timeout.
        """
        registry = _registry(reference)
        header, note = (auth, "") if auth is not None else _operator_credentials(client, registry)
        repository, tag = parse_repository_tag(reference)
        try:
            answer = client.post(
                f"{client.base_url}/v{client.api_version}/images/create",
                params={"fromImage": repository, "tag": tag or "latest"},
                headers={"X-Registry-Auth": header} if header else {},
                stream=True,
                timeout=(5, timeout),
            )
        except ReadTimeout:
            error_text = f"The registry {registry} did not start to answer within {timeout:.0f} s"
        else:
            with closing(answer):
                error_text = _error_text(answer)
        unreached = bool(error_text) and any(pattern in error_text.lower() for pattern in _UNREACHED)
        if unreached:
            self._silent_until[registry] = time.monotonic() + _UNREACHED_RETRY_AFTER
        return f"{error_text}{note}" if error_text else "", unreached


def _may_be_newer(present: Mapping[str, Any], reference: str, auth: str | None) -> bool:
    """Return True if a pull can bring a newer image.

    A digest never changes. An image that was never in its repository was built on this host, as a local CI does.
    """
    by_id = present["Id"].removeprefix("sha256:").startswith(reference.removeprefix("sha256:"))
    if "@" in reference or by_id:
        return False
    return auth is not None or digest_in(present, reference) is not None


def _operator_credentials(client: docker.APIClient, registry: str) -> tuple[str | None, str]:
    """Return a header with the operator's credentials, and a suffix for the error text.

    The suffix is empty unless the credentials cannot be read.
    """
    try:
        client.reload_config()
        header = get_config_header(client, registry)
    except (DockerException, OSError, ValueError) as error:
        return None, f" (without credentials: Docker's could not be read: {error})"
    return (header.decode() if isinstance(header, bytes) else header), ""


def _error_text(answer: Any) -> str:
    """Read the pull's progress to its end. Return the error that ends it, empty on success."""
    if answer.status_code >= 400:
        try:
            return str(answer.json()["message"])
        except (ValueError, KeyError):
            return answer.text.strip() or f"HTTP {answer.status_code}"
    if answer.raw.connection is not None and answer.raw.connection.sock is not None:
        answer.raw.connection.sock.settimeout(_PROGRESS_TIMEOUT)
    try:
        line: Any
        for line in json_stream(answer.iter_content(chunk_size=None)):
            if "error" in line:
                return str(line["error"])
    except FAILURES as error:
        return f"The pull was interrupted: {error}"
    return ""


def _inspect(client: docker.APIClient, reference: str) -> dict[str, Any] | None:
    inspect: Any = client.inspect_image
    try:
        return dict(inspect(reference))
    except NotFound:
        return None
    except APIError as error:
        if error.status_code == 400:
            raise EngineError(str(error.explanation), reason="image_pull_failed") from error
        raise


def _registry(reference: str) -> str:
    try:
        return str(resolve_repository_name(parse_repository_tag(reference)[0])[0])
    except DockerException as error:
        raise EngineError(str(error), reason="image_pull_failed") from error
