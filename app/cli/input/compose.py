"""Client side of Compose files: merges them, reads their inputs, and follows their deployments."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from app.cli.command import CommandContext
from app.cli.errors import NOT_SUCCEEDED, SUCCEEDED, SUPERSEDED, CliError, usage
from app.cli.follow import follow, url_of
from app.cli.input.envfile import read_env_file, read_raw_env_file
from app.cli.input.files import InputFile
from app.cli.output.messages import end_of
from app.cli.waiting import Waiting
from services.compose.client_inputs import ClientInputs, client_inputs_of
from services.compose.document import ComposeError, parse_layer
from services.compose.merge import merge
from services.compose.serialization import serialize


@dataclass(frozen=True)
class ComposeFile:
    """Compose files, each of which overrides those before it, with their options.

    `env_file` replaces the .env file beside the first one.
    """

    files: Sequence[InputFile]
    only: str | None = None
    project: str | None = None
    profiles: str | None = None
    env_file: tuple[Path, ...] = ()
    note: str | None = None


async def deploy_together(context: CommandContext, file: ComposeFile, waiting: Waiting) -> int:
    """Deploy a Compose file's services, follow every deployment and print how each ended.

    Returns the exit code of the worst one.
    """
    group = await context.client.post(*request_of(context, file))
    ids = group["deployments"]
    if waiting.detach:
        numbers = ", ".join(map(str, ids))
        context.out.result(group, f"Group {group['group']} accepted: deployments {numbers}.", str(group["group"]))
        context.out.say(f"Follow a deployment with `sluice status {ids[-1]} --follow`.")
        return SUCCEEDED
    deadline = None if waiting.timeout is None else time.monotonic() + waiting.timeout
    ended = []
    for id in ids:
        deployment = await context.client.get(f"/deployments/{id}")
        ended.append(await follow(context, deployment, None if deadline is None else max(deadline - time.monotonic(), 0)))
    ends = [end_of(deployment, await url_of(context, deployment)) for deployment in ended]
    told = "\n".join(end.sentence for end in ends)
    context.out.result({**group, "deployments": ended}, told, "\n".join(map(str, ids)))
    for end in ends:
        if end.advice and end.exit_code:
            context.out.say(end.advice)
    codes = {end.exit_code for end in ends}
    return next((code for code in (NOT_SUCCEEDED, SUPERSEDED) if code in codes), SUCCEEDED)


def request_of(context: CommandContext, file: ComposeFile) -> tuple[str, dict[str, Any]]:
    """Return path and body of POST /apply. Raises CliError for files that cannot be read here."""
    directory = file.files[0].directory.resolve()
    beside = directory / ".env"
    found: dict[str, str] = {}
    for path in file.env_file or ((beside,) if beside.exists() else ()):
        found |= read_env_file(path)
    variables = {**found, **os.environ}
    try:
        text = _merged(file.files, variables)
        needs = client_inputs_of(text, variables)
    except ComposeError as error:
        raise _not_compose(file.files[0], error) from None
    asked = {
        "project": _project(file, needs, variables, directory),
        "directory": str(directory),
        "only": file.only,
        "profiles": file.profiles or variables.get("COMPOSE_PROFILES"),
        "note": file.note,
    }
    body = {
        "compose": text,
        "variables": {name: variables[name] for name in sorted(needs.variables) if name in variables},
        "env_files": _env_files(context, directory, needs),
    }
    return f"/apply?{urlencode({name: value for name, value in asked.items() if value})}", body


def _merged(files: Sequence[InputFile], variables: Mapping[str, str]) -> str:
    """Return the text of one file, or of several merged into one. Raises ComposeError."""
    if len(files) == 1:
        return files[0].text
    return serialize(merge([parse_layer(file.text, variables, str(file)) for file in files]))


def _env_files(context: CommandContext, directory: Path, needs: ClientInputs) -> dict[str, dict[str, str]]:
    """Return the variables of the env_files that exist, and report missing required ones.

    A missing one is no error here: whether it is needed depends on the services that are deployed.
    """
    found = {}
    for name, file in needs.files.items():
        if (directory / name).is_file():
            found[name] = (read_raw_env_file if file.raw else read_env_file)(directory / name)
        elif file.required:
            context.out.say(f"{directory / name} not found.")
    return found


def _project(file: ComposeFile, needs: ClientInputs, variables: Mapping[str, str], directory: Path) -> str | None:
    """Return the project's name; None if the Compose file itself has one."""
    given = file.project or variables.get("COMPOSE_PROJECT_NAME")
    if given or needs.name:
        return given
    return re.sub(r"[^a-z0-9_-]", "", directory.name.lower()).lstrip("_-")


def _not_compose(file: InputFile, error: ComposeError) -> CliError:
    first = error.findings[0]
    return usage(f"{first.source or file}, line {first.line}: {first.message}")
