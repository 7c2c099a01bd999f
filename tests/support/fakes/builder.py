"""The fake engine's image builder, which executes the part of a Dockerfile that tests need."""

from __future__ import annotations

import asyncio
import io
import posixpath
import tarfile
from collections.abc import AsyncGenerator

from services.engine.port import BuildSpec, EngineError


async def steps(spec: BuildSpec, dockerfile: str) -> AsyncGenerator[str]:
    """Yield the build's log.

    Of shell commands it knows `echo`, `false`, and `sleep`, which never ends; $NAME is replaced by the value of an ARG.
    Raises EngineError with the reason `build_failed`.
    """
    lines = [line for line in dockerfile.splitlines() if line and not line.startswith("#")]
    for number, line in enumerate(lines, 1):
        yield f"Step {number}/{len(lines)} : {line}"
        command = line.removeprefix("RUN ")
        for name, value in spec.args.items():
            command = command.replace(f"${name}", value)
        if command.startswith("echo "):
            yield command.removeprefix("echo ")
        elif command == "false":
            raise EngineError("The command '/bin/sh -c false' returned a non-zero code: 1", reason="build_failed")
        elif command.startswith("sleep"):
            await asyncio.Event().wait()
    yield f"Successfully tagged {spec.tag}"


def dockerfile_of(spec: BuildSpec) -> str:
    """Return the Dockerfile's text. Raises EngineError with the reason `build_failed`."""
    with tarfile.open(fileobj=io.BytesIO(b"".join(spec.context))) as tar:
        for endpoint in tar:
            if posixpath.normpath(endpoint.name) == posixpath.normpath(spec.dockerfile):
                found = tar.extractfile(endpoint)
                assert found is not None
                return found.read().decode()
    raise EngineError(f"Cannot locate specified Dockerfile: {spec.dockerfile}", reason="build_failed")
