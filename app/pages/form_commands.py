"""Commands made of form answers, and the same commands as terminal lines (`sluice`, `curl`)."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from app.api.request_body import check_depth
from app.problems import Problem
from services.errors import FieldError
from services.redaction import redacted
from services.rollouts.requests import commands
from services.rollouts.requests.command import Command, DeployRequest

MAX_REPLICAS = 100
"""Maximum instances of a service (docs/api.md)."""
_UNLIMITED = 2**53
_CLI_OPTIONS = ("image", "port", "replicas")
"""Fields for which the command `sluice deploy` has an option."""
MAX_YAML = 32 * 1024
"""Maximum characters of the YAML, which is parsed in the event loop."""
MAX_VALUES = 10_000
"""Maximum values of the YAML including aliases: a few lines of aliases can stand for billions of values."""


@dataclass(frozen=True)
class FormCommand:
    """The command of a form, and the same request for a terminal.

    `scope` is the scope that the request needs at least. `deploy` is the DeployRequest whose fields may need more.
    `cli` (the command line of `sluice`) and `body` are for display: their secrets are masked.
    """

    command: Command
    scope: str
    cli: str
    method: str
    path: str
    body: Mapping[str, Any] | None = None
    deploy: DeployRequest | None = None

    def curl(self, base: str) -> str:
        """Return the request as a `curl` line; `base` is Sluice's URL as the viewer's browser reaches it."""
        parts = ["curl", "--fail-with-body"]
        if self.method != "POST":
            parts += ["-X", self.method]
        line = f'{shlex.join(parts)} -H "Authorization: Bearer $SLUICE_TOKEN"'
        if self.body is not None:
            line += f" \\\n  -d {shlex.quote(json.dumps(self.body, ensure_ascii=False))}"
        address = shlex.quote(f"{base.rstrip('/')}{self.path}?wait=600")
        return f"{line} \\\n  {address}"


def parse_form(kind: str, service: str, answers: Mapping[str, str]) -> FormCommand:
    """Return the command of `kind`; `answers` are the form's fields as typed.

    Raises Problem `invalid` that names the field if an answer has no valid meaning.
    """
    return KINDS[kind](service, answers)


def parse_create_form(service: str, answers: Mapping[str, str]) -> FormCommand:
    """Return the command that creates `service`. Raises Problem as parse_form does."""
    return _deployment(service, _spec_fields(answers), answers, "write", new=True)


def _deploy(service: str, answers: Mapping[str, str]) -> FormCommand:
    fields = _spec_fields(answers)
    if not fields:
        raise _invalid("image", "change the image, the number of instances, or another field")
    return _deployment(service, fields, answers, "deploy")


def _spec_fields(answers: Mapping[str, str]) -> dict[str, Any]:
    """Return the spec's fields; fields with their own input take precedence over the YAML."""
    fields = _parse_fields(answers.get("fields", ""))
    if image := answers.get("image", "").strip():
        fields["image"] = image
    for name, least, most in (("port", 1, 65535), ("replicas", 0, MAX_REPLICAS)):
        if answers.get(name, "").strip():
            fields[name] = _number(name, answers[name], least, most)
    return fields


def _deployment(
    service: str, fields: dict[str, Any], answers: Mapping[str, str], scope: str, *, new: bool = False
) -> FormCommand:
    """Return the command that deploys `fields`.

    `new` makes the deployment expect that no service of that name exists: a service that another caller creates in the
    meantime is not changed.
    """
    note = answers.get("note", "").strip()
    masked, cli = redacted(fields), ["sluice", "deploy", service]
    options = {name: ["--" + name, str(fields[name])] for name in _CLI_OPTIONS if answers.get(name, "").strip()}
    for name, value in masked.items():
        cli += options[name] if name in options else ["--set", f"{name}={json.dumps(value, ensure_ascii=False)}"]
    if note:
        cli += ["--note", note]
    if new:
        cli += ["--expected-revision", "0"]
    deploy_request = DeployRequest(service, fields, note=note or None, expected_revision=0 if new else None)
    body = {"service": service, **masked, **({"note": note} if note else {}), **({"expected_revision": 0} if new else {})}
    return FormCommand(
        commands.deploy(deploy_request),
        scope,
        shlex.join(cli),
        "POST",
        "/deployments",
        body,
        deploy_request,
    )


def _scale(service: str, answers: Mapping[str, str]) -> FormCommand:
    replicas = _number("replicas", answers.get("replicas", ""))
    return FormCommand(
        commands.scale(service, replicas), "deploy", f"sluice scale {service} {replicas}",
        "POST", f"/services/{service}/scale", {"replicas": replicas},
    )  # fmt: skip


def _rollback(service: str, answers: Mapping[str, str]) -> FormCommand:
    revision = answers.get("to_revision", "").strip()
    number = _number("to_revision", revision, 1, _UNLIMITED) if revision else None
    return FormCommand(
        commands.rollback(service, number), "deploy",
        f"sluice rollback {service}" + (f" --to {number}" if number else ""),
        "POST", f"/services/{service}/rollback", {"to_revision": number} if number else {},
    )  # fmt: skip


def _restart(service: str, answers: Mapping[str, str]) -> FormCommand:
    return FormCommand(
        commands.restart(service), "deploy", f"sluice restart {service}",
        "POST", f"/services/{service}/restart", {},
    )  # fmt: skip


def _remove(service: str, answers: Mapping[str, str]) -> FormCommand:
    return FormCommand(
        commands.remove(service),
        "write",
        f"sluice rm {service}",
        "DELETE",
        f"/services/{service}",
    )


KINDS: dict[str, Callable[[str, Mapping[str, str]], FormCommand]] = {
    "deploy": _deploy, "scale": _scale, "rollback": _rollback, "restart": _restart, "remove": _remove,
}  # fmt: skip


def _parse_fields(text: str) -> dict[str, Any]:
    """Return further fields of the spec from YAML, of which JSON is a part."""
    try:
        value = _yaml(text) if text.strip() else {}
        json.dumps(value, allow_nan=False)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}: " if mark is not None else ""
        raise _invalid("fields", f"{where}{getattr(error, 'problem', None) or 'not YAML'}") from None
    except (TypeError, ValueError, RecursionError):
        raise _invalid("fields", "has a value that JSON does not support, such as a date; write it in quotes") from None
    if not isinstance(value, dict) or not all(isinstance(name, str) for name in value):
        raise _invalid("fields", "must be a mapping, such as  port: 8080")
    check_depth(value, "fields")
    return value


def _yaml(text: str) -> Any:
    """Return the value of a YAML text. Raises Problem if the text or its value is too large.

    Aliases are counted before the value is made: merges (`<<`) are copied, and JSON writes every alias out.
    """
    if len(text) > MAX_YAML:
        raise _invalid("fields", f"is longer than {MAX_YAML} characters")
    loader = yaml.SafeLoader(text)
    try:
        root = loader.get_single_node()
        if root is not None and _values(root, {}) > MAX_VALUES:
            raise _invalid("fields", f"has more than {MAX_VALUES} values, aliases counted")
        return loader.construct_document(root) if root is not None else None
    finally:
        loader.dispose()


def _values(node: yaml.Node, known: dict[int, int]) -> int:
    """Return the number of values of a node with its aliases written out.

    The result exceeds MAX_VALUES if the node contains itself.
    """
    if id(node) not in known:
        known[id(node)] = MAX_VALUES + 1
        if isinstance(node, yaml.MappingNode):
            parts = [part for pair in node.value for part in pair]
        else:
            parts = node.value if isinstance(node, yaml.SequenceNode) else []
        known[id(node)] = 1 + sum(_values(part, known) for part in parts)
    return known[id(node)]


def _number(field: str, text: str, least: int = 0, most: int = MAX_REPLICAS) -> int:
    text = text.strip()
    if not (text.isascii() and text.isdecimal() and len(text) < 18 and least <= int(text) <= most):
        raise _invalid(field, f"must be a whole number from {least}" + (f" to {most}" if most < _UNLIMITED else " on"))
    return int(text)


def _invalid(field: str, message: str) -> Problem:
    return Problem("invalid", f"{field}: {message}", [FieldError(field, message)])
