"""Image builds with the engine's classic builder, which every engine since 20.10 offers in its API."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from typing import Any

import docker
from docker.errors import DockerException
from docker.types.daemon import CancellableStream
from docker.utils.json_stream import json_stream

from services.engine.docker.client import translate_errors
from services.engine.docker.codec import BUILT, NAME, SERVICE
from services.engine.docker.streams import StreamCancel
from services.engine.port import BuildSpec, EngineError

BUILD_FAILED = "build_failed"


def build(stop: StreamCancel, new: Callable[[], docker.APIClient], name: str, spec: BuildSpec) -> Generator[str]:
    """Build an image and yield the lines of the log. Blocks. Raises EngineError `build_failed`.

    The engine cancels the build when the connection closes.
    """
    with translate_errors(), closing(new()) as client:
        answer = client.post(
            f"{client.base_url}/v{client.api_version}/build",
            params=_parameters(client, name, spec),
            headers={"Content-Type": "application/x-tar", **_credentials(client)},
            data=(part for part in spec.context if part),  # an empty chunk would end the body
            stream=True,
            timeout=None,  # a step may be silent for as long as the whole build may take
        )
        with closing(answer):
            if answer.status_code >= 400:
                raise EngineError(_error_text(answer), reason=BUILD_FAILED)
            messages = CancellableStream(json_stream(answer.iter_content(chunk_size=None)), answer)
            stop.set_stream(messages)
            yield from _lines(messages)


def _parameters(client: Any, name: str, spec: BuildSpec) -> dict[str, Any]:
    parameters = {
        "t": spec.tag,
        "dockerfile": spec.dockerfile,
        "target": spec.target,
        "buildargs": json.dumps({**client._proxy_configs.get_environment(), **spec.args}),
        "labels": json.dumps({NAME: name, SERVICE: spec.service, BUILT: spec.tag}),
        "networkmode": spec.network,
        "rm": "1",
        "forcerm": "1",
    }
    return {key: value for key, value in parameters.items() if value is not None}


def _credentials(client: Any) -> dict[str, str]:
    """Return headers with the operator's credentials for the Dockerfile's FROM images.

    The headers are empty if the credentials cannot be read.
    """
    headers: dict[str, str] = {}
    try:
        client._set_auth_headers(headers)
    except (DockerException, OSError, ValueError):
        return {}
    return headers


def _lines(messages: Iterator[Any]) -> Iterator[str]:
    """Yield the builder's output without the progress of pulls.

    Raises EngineError if the builder reports a failure.
    """
    partial = ""
    for message in messages:
        if "error" in message:
            if partial:
                yield partial
            raise EngineError(str(message["error"]).strip(), reason=BUILD_FAILED)
        *lines, partial = (partial + _text(message)).split("\n")
        yield from lines
    if partial:
        yield partial


def _text(message: dict[str, Any]) -> str:
    if "stream" in message:
        return str(message["stream"])
    if "status" in message and not message.get("progressDetail"):
        part = f"{message['id']}: " if "id" in message else ""
        return f"{part}{message['status']}\n"
    return ""


def _error_text(answer: Any) -> str:
    try:
        return str(answer.json()["message"]).strip()
    except (ValueError, KeyError):
        return answer.text.strip() or f"HTTP {answer.status_code}"
