"""The body of POST /deployments, made of arguments and a file."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from app.cli.errors import usage
from app.cli.input.envfile import read_env_file
from app.cli.input.files import InputFile
from app.cli.input.profilefile import ProfileFile, read_profile_file
from app.cli.input.specfile import plain, read_spec
from app.cli.input.variables import refuse_repeated, variable


@dataclass(frozen=True)
class Arguments:
    """Arguments of the command line; None if not given."""

    service: str | None = None
    file: InputFile | None = None
    image: str | None = None
    port: int | None = None
    replicas: int | None = None
    env: Sequence[str] = ()
    env_file: Sequence[Path] = ()
    route: Sequence[str] = ()
    settings: Sequence[str] = ()
    profile: str | None = None
    profile_file: Path | None = None
    no_profile: bool = False
    note: str | None = None
    expected_revision: int | None = None
    mode: str | None = None


def body_of(given: Arguments) -> dict[str, Any]:
    """Return the request's body; arguments take precedence over the file.

    A file is the whole spec (`replace`), arguments alone change the current one (`merge`).
    """
    body = {} if given.file is None else read_spec(given.file)
    if given.profile_file is not None:
        _lay(read_profile_file(given.profile_file), given, body)
    for name in ("service", "image", "port", "replicas", "note", "expected_revision", "mode"):
        value = getattr(given, name)
        if value is not None:
            body[name] = value
    environment: dict[str, str] = {}
    for path in given.env_file:
        environment |= read_env_file(path, complete=True)
    refuse_repeated("--env", [text.partition("=")[0].strip() for text in given.env])
    for text in given.env:
        environment |= variable(text)
    # a profile is applied over the spec: arguments take precedence only inside the profile
    within = ["profiles", body["profile"]] if given.profile_file is not None else []
    for name, text in environment.items():
        _put(body, [*within, "environment", name], text)
    if given.route:
        body["routes"] = [route(text) for text in given.route]
    for names, value in _settings(given.settings):
        _put(body, names, value)
    if given.no_profile or given.profile is not None:
        body["profile"] = None if given.no_profile else given.profile
    if not body.get("service"):
        where = f"{given.file}: service is missing" if given.file else "SERVICE is missing"
        raise usage(
            where, "`sluice deploy NAME --image IMAGE`, or `sluice deploy -f sluice.yaml` with `service: NAME` in it."
        )
    if given.file:
        body.setdefault("mode", "replace")
    if given.replicas is None and _profile_has_replicas(body):
        body.pop("replicas", None)  # the file's own replicas; in a body they would take precedence over the profile's
    return body


def _profile_has_replicas(body: dict[str, Any]) -> bool:
    profiles = body.get("profiles")
    layer = profiles.get(body.get("profile")) if isinstance(profiles, dict) else None
    return isinstance(layer, dict) and layer.get("replicas") is not None


def _lay(file: ProfileFile, given: Arguments, body: dict[str, Any]) -> None:
    """Add the file to the body as a profile, over a profile of that name, and select it for deployment.

    Raises CliError.
    """
    if given.profile is not None or given.no_profile:
        raise usage("--profile-file excludes --profile and --no-profile", "The file is the profile: omit the other option.")
    if given.service is None and file.service and body.get("service", file.service) != file.service:
        raise usage(
            f"{given.profile_file} is for {file.service}, {given.file} for {body['service']}",
            "Name the service as an argument.",
        )
    body |= {"profile": file.name, **({"service": file.service} if file.service else {})}
    for name, value in file.layer.items():
        if name != "environment":
            _put(body, ["profiles", file.name, name], value)
    for name, text in file.layer["environment"].items():
        _put(body, ["profiles", file.name, "environment", name], text)


def route(text: str) -> dict[str, Any]:
    """Parse a route: `/path`, `host` or `host/path`, and `,strip` to remove the path from requests.

    Raises CliError.
    """
    server, *words = text.split(",")
    host, slash, path = server.partition("/")
    if not server or any(word != "strip" for word in words):
        raise usage(
            f"invalid --route {text!r}", "Examples: --route /web, --route example.org, --route example.org/api,strip."
        )
    made: dict[str, Any] = {"host": host} if host else {}
    if slash:
        made["path_prefix"] = "/" + path
    return {**made, "strip_prefix": True} if words else made


def setting(text: str) -> tuple[list[str], Any]:
    r"""Parse `field.of.field=value`, with the value in YAML (`null`, `5`, `[a, b]`).

    A dot in a name is written `\.`. Raises CliError.
    """
    path, given, value = text.partition("=")
    names = [name.replace("\\.", ".") for name in re.split(r"(?<!\\)\.", path)]
    if not given or not all(names):
        raise usage(
            f"--set {text!r} is not field=value", "Examples: --set healthcheck.path=/healthz, --set environment.DEBUG=null."
        )
    try:
        return names, plain(yaml.safe_load(value), f"--set {path}")
    except yaml.YAMLError:
        return names, value


def _settings(texts: Sequence[str]) -> list[tuple[list[str], Any]]:
    """Parse all --set. Raises CliError if one would undo another, as `a=null` undoes `a.b=1`."""
    made = [setting(text) for text in texts]
    for number, (names, _) in enumerate(made):
        for others, _ in made[:number]:
            if names[: len(others)] == others[: len(names)]:
                raise usage(
                    f"--set {'.'.join(names)} and --set {'.'.join(others)} exclude each other", "Remove one of them."
                )
    return made


def registry_header(auth: str | None, image: str | None) -> dict[str, str]:
    """Return the `X-Registry-Auth` header, {} if `auth` is empty.

    `auth`: `user:password` for the image's registry, or Docker's own base64, which is passed unchanged.
    """
    if not auth:
        return {}
    user, colon, password = auth.partition(":")
    if not colon:
        return {"X-Registry-Auth": auth}
    first, slash, _ = (image or "").partition("/")
    server = first if slash and ("." in first or ":" in first or first == "localhost") else "https://index.docker.io/v1/"
    credentials = json.dumps({"username": user, "password": password, "serveraddress": server})
    return {"X-Registry-Auth": base64.urlsafe_b64encode(credentials.encode()).decode()}


def _put(body: dict[str, Any], names: list[str], value: Any) -> None:
    """Set a nested field; a value on the way to it that is no mapping is replaced."""
    *outer, last = names
    for name in outer:
        inner = body.get(name)
        body[name] = dict(inner) if isinstance(inner, dict) else {}
        body = body[name]
    body[last] = value
