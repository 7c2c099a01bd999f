"""Build of an image from a directory: packed here, built by Sluice, its log printed as it is written."""

from __future__ import annotations

import asyncio
import os
import posixpath
import tempfile
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from app.cli.client.events import parse
from app.cli.client.http import Client
from app.cli.command import CommandContext
from app.cli.errors import INTERRUPTED, NOT_SUCCEEDED, CliError, usage
from app.cli.input.files import InputFile
from app.cli.input.variables import here, refuse_repeated
from app.cli.output.messages import Document

_KEYS = ("context", "dockerfile", "args", "target")
_SHOWN = 20
"""Number of lines of a failed build's log that --quiet shows."""


@dataclass(frozen=True)
class BuildSource:
    """Input of an image's build. `dockerfile` is relative to `context`."""

    context: Path
    dockerfile: str = "Dockerfile"
    target: str | None = None
    args: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class BuildOptions:
    """Values of --build and its companion options."""

    build: Path | None = None
    dockerfile: str | None = None
    target: str | None = None
    build_arg: Sequence[str] = ()

    @property
    def given(self) -> bool:
        return any((self.build, self.dockerfile, self.target, self.build_arg))


def source_of(body: dict[str, Any], file: InputFile | None, image: str | None, typed: BuildOptions) -> BuildSource | None:
    """Remove `build` from the body and return the source to build, None if an image is deployed as it is.

    Options take precedence over the file. Raises CliError.
    """
    said = _build_section(body.pop("build", None), file)
    if image is not None:
        if typed.given:
            raise usage("--image and --build exclude each other")
        return None
    if said is None and typed.build is None:
        if typed.given:
            raise usage("there is nothing to build", "Name the build context: --build .")
        return None
    if said is not None and "image" in body:
        raise usage(f"{file}: image and build exclude each other", "A build names the image itself; remove one of them.")
    return _source(said or {}, typed)


async def build_image(context: CommandContext, service: str, source: BuildSource) -> Document:
    """Build an image and return the succeeded build. Raises CliError."""
    from services.engine.docker.build_context import pack  # loads Docker's SDK, which takes a while

    with tempfile.NamedTemporaryFile(prefix="sluice-context-", suffix=".tar.gz") as packed:
        try:
            await asyncio.to_thread(pack, source.context, source.dockerfile, packed)
            size = packed.seek(0, os.SEEK_END)
            packed.flush()
        except (OSError, ValueError) as error:
            raise usage(f"{source.context} cannot be packed: {error}") from error
        context.out.say(f"Uploading build context ({_formatted(size)})")
        params = {
            "service": service,
            "dockerfile": source.dockerfile,
            "target": source.target,
            "arg": [f"{name}={value}" for name, value in source.args.items()],
        }
        build: Document = await context.client.send("/builds", Path(packed.name), "application/gzip", **params)
    return await _followed(context, build)


async def cancel_build(context: CommandContext, number: int) -> Document:
    """Cancel a build and return it. Raises CliError, also if the build has already ended."""
    try:
        build: Document = await context.client.post(f"/builds/{number}/cancel")
    except CliError as error:
        if error.document.get("code") == "not_in_that_state":
            error.advice = f"Its log: {context.client.place.url}/ui/builds/{number}"
        raise
    return build


async def _followed(context: CommandContext, build: Document) -> Document:
    """Follow a build to its end, through restarts of Sluice.

    Raises CliError if the build fails, and when interrupted: then the build continues.
    """
    number, after, last = build["id"], 0, deque[str](maxlen=_SHOWN)
    page = f"{context.client.place.url}/ui/builds/{number}"
    context.out.say(f"Build {number}: {page}")

    async def read() -> None:
        nonlocal after
        async with _log(context.client, number, after) as lines:
            async for event in parse(lines):
                after = event.id
                last.append(event.message)
                context.out.say(last[-1])

    try:
        while build["status"] not in ("succeeded", "failed"):
            await context.client.retry_while_unavailable(read)
            build = await context.client.get(f"/builds/{number}")
    except asyncio.CancelledError:
        message = f"interrupted; build {number} of {build['service']} continues, and nothing is deployed"
        back = f"Cancel it with `sluice build --cancel {number}`, or see {page}"
        raise CliError(message, back, INTERRUPTED, {"code": "interrupted", "build": build}) from None
    if build["status"] == "failed":
        message = f"build {number} of {build['service']} failed ({build['reason']}): {build['message']}"
        shown = "\n".join([*last, ""]) if context.out.quiet else ""
        raise CliError(message, f"{shown}Nothing was deployed.", NOT_SUCCEEDED, {"code": "build_failed", "build": build})
    return build


def _log(client: Client, number: int, after: int) -> Any:
    headers = {"Last-Event-ID": str(after)}
    return client.stream(f"/builds/{number}/log", accept="text/event-stream", headers=headers)


def _build_section(build: Any, file: InputFile | None) -> dict[str, Any] | None:
    """Return the file's `build` with its context relative to the working directory.

    Raises CliError if `build` is invalid.
    """
    if build is None:
        return None
    said = {"context": build} if isinstance(build, str) else build
    if not isinstance(said, dict) or not isinstance(said.get("context", "."), str):
        raise usage(f"{file}: build must be a directory, or a mapping with {', '.join(_KEYS)}")
    unknown = [name for name in said if name not in _KEYS]
    if unknown:
        raise usage(f"{file}: unknown key build.{unknown[0]}", f"Known keys: {', '.join(_KEYS)}.")
    if not isinstance(said.get("args") or {}, dict):
        raise usage(f"{file}: build.args must be a mapping of names to values")
    beside = Path() if file is None else file.directory
    return {**said, "context": beside / str(said.get("context", "."))}


def _source(said: dict[str, Any], typed: BuildOptions) -> BuildSource:
    context = typed.build or said["context"]
    if not context.is_dir():
        raise usage(f"{context} is not a directory", "Name a directory that contains a Dockerfile: --build .")
    dockerfile = posixpath.normpath(str(typed.dockerfile or said.get("dockerfile") or "Dockerfile"))
    if not (context / dockerfile).is_file():
        raise usage(f"{context / dockerfile} not found", "--dockerfile PATH is relative to the build context.")
    args = {name: _text(value) for name, value in (said.get("args") or {}).items() if value is not None}
    refuse_repeated("--build-arg", [text.partition("=")[0] for text in typed.build_arg])
    for text in typed.build_arg:
        name, given, value = text.partition("=")
        args[name] = value if given else here(name, "--build-arg")
    return BuildSource(context, dockerfile, typed.target or said.get("target"), args)


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _formatted(size: int) -> str:
    return f"{size / 1e3:.1f} kB" if size < 1e6 else f"{size / 1e6:.1f} MB"
