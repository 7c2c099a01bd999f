"""The public contract as lines of text, one file per part, without descriptions and messages.

Help texts are left out too. `.venv/bin/python -m tests.contract.public_contract` (or `make snapshot`)
writes the files from the code.
"""

from __future__ import annotations

import ast
import json
import re
import sqlite3
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from enum import StrEnum
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import typer
from prometheus_client.parser import text_string_to_metric_families

from app.cli import cli
from app.settings import PREFIX, Settings
from app.version import VERSION
from services.routing.traffic_counts import CountKey
from services.store import migrate
from tests.contract.event_types import event_types
from tests.support.app_fixture import build, eventually, living

ROOT = Path(__file__).parents[2]
DIRECTORY = Path(__file__).parent / "snapshot"
METHODS = ("get", "put", "post", "delete", "options", "head", "patch", "trace")
PROSE = {"description", "title", "example", "examples", "summary"}


def openapi() -> Iterator[str]:
    """Yield operations with parameters, bodies, answers and problem codes; then the schemas' fields."""
    with TemporaryDirectory(prefix="s.") as place:
        made = build(Path(place))
        document = made.app.openapi()
        made.engine.close()
    for path, item in sorted(document["paths"].items()):
        for method in METHODS:
            if method in item:
                yield from _operation(method, path, item[method])
    for name, schema in sorted(document["components"]["schemas"].items()):
        yield from ("", name)
        required = set(schema.get("required", ()))
        for field, kind in schema.get("properties", {}).items():
            yield f"  {field}{' required' if field in required else ''} {_kind(kind)}"
        yield f"  {_kind({key: value for key, value in schema.items() if key not in ('properties', 'required')})}"


def _operation(method: str, path: str, operation: Mapping[str, Any]) -> Iterator[str]:
    yield from ("", f"{method.upper()} {path} {operation['operationId']}")
    for parameter in operation.get("parameters", ()):
        required = " required" if parameter.get("required") else ""
        yield f"  {parameter['in']} {parameter['name']}{required} {_kind(parameter['schema'])}"
    body = operation.get("requestBody", {})
    for media, content in body.get("content", {}).items():
        yield f"  body{' required' if body.get('required') else ''} {media} {_kind(content.get('schema', {}))}"
    for status, answer in sorted(operation["responses"].items()):
        if not answer.get("content"):
            yield f"  {status}"
        for media, content in answer.get("content", {}).items():
            codes = " ".join(sorted(content.get("examples", ()))) if media == "application/problem+json" else ""
            yield f"  {status} {media} {codes or _kind(content.get('schema', {}))}"


def _kind(schema: Any) -> str:
    return json.dumps(_plain(schema), sort_keys=True)


def _plain(schema: Any) -> Any:
    """Return the schema without prose; a field that is named like a prose key stays."""
    if isinstance(schema, list):
        return [_plain(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: {name: _plain(kind) for name, kind in value.items()} if key == "properties" else _plain(value)
        for key, value in schema.items()
        if key not in PROSE
    }


def events() -> Iterator[str]:
    """Yield the event types; `*` stands for a status of an instance or a build."""
    yield from event_types([ROOT / "app", ROOT / "services"])


def labels() -> Iterator[str]:
    """Yield labels of containers, networks and images, and the values of `sluice.role`."""
    found: set[str] = set()
    for path in (ROOT / "services").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Constant(value=str(text)) if re.fullmatch(r"sluice\.[a-z_]+", text):
                    found.add(text)
                case ast.Assign(targets=[target], value=value):
                    found |= {f"sluice.role={role}" for role in _roles(target, value)}
    yield from sorted(found - {"sluice.db", "sluice.lock", "sluice.yaml"})


def _roles(target: ast.expr, value: ast.expr) -> Iterator[str]:
    """Yield texts assigned to a constant whose name ends in _ROLE."""
    match target, value:
        case ast.Name(id=name), ast.Constant(value=str(text)) if name.endswith("_ROLE"):
            yield text
        case ast.Tuple(elts=targets), ast.Tuple(elts=values):
            for inner, part in zip(targets, values, strict=False):
                yield from _roles(inner, part)


def metrics() -> Iterator[str]:
    """Yield names, kinds and labels of /metrics when every metric has a sample."""
    with TemporaryDirectory(prefix="s.") as place, living(build(Path(place))) as made:
        assert made.deploy().status_code == 200
        made.gateway.news = Counter({CountKey("web", 1, 2, None): 1, CountKey("web", 1, None, 4): 1})
        made.call(made.sluice.traffic_sampler.sample)

        def text() -> str:
            reported: str = made.client.get("/metrics").text
            return reported if "sluice_gateway_requests_total{" in reported else ""

        for family in text_string_to_metric_families(eventually(text, "answers are counted")):
            names: dict[str, set[str]] = {}
            for sample in family.samples:
                names.setdefault(sample.name, set()).update(sample.labels)
            for name, labelled in sorted(names.items()):
                yield f"{name} {family.type} {' '.join(sorted(labelled))}".strip()


def tables() -> Iterator[str]:
    """Yield the DDL of a migrated database."""
    with TemporaryDirectory() as place:
        migrate.migrate(Path(place) / "sluice.db", Path(place) / "backups")
        with closing(sqlite3.connect(Path(place) / "sluice.db")) as database:
            made = "SELECT sql FROM sqlite_master WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite_%'"
            for (sql,) in database.execute(f"{made} ORDER BY tbl_name, type DESC, name"):
                yield from re.sub(r",\s*(?=[A-Z\"a-z_]+ )", ",\n  ", re.sub(r"\s+", " ", sql)).splitlines()


def commands() -> Iterator[str]:
    """Yield the command line's verbs with their arguments and options."""
    yield from _command("sluice", typer.main.get_command(cli))


def _command(name: str, command: Any) -> Iterator[str]:
    yield f"{name}{' hidden' if command.hidden else ''}"
    for parameter in command.params:
        opts = " ".join([*parameter.opts, *parameter.secondary_opts])
        annotation = parameter.type_descriptor.annotation
        kind = "|".join(annotation) if issubclass(annotation, StrEnum) else annotation.__name__
        marks = [mark for mark in ("required", "multiple", "is_flag", "count", "hidden") if getattr(parameter, mark, False)]
        default = f"= {parameter.default!r}" if parameter.default is not None else ""
        env = f"env {parameter.envvar}" if parameter.envvar else ""
        yield " ".join(part for part in ("  ", opts, kind, *marks, default, env) if part)
    for verb, inner in sorted(getattr(command, "commands", {}).items()):
        yield from _command(f"{name} {verb}", inner)


def settings() -> Iterator[str]:
    """Yield the settings with their types and defaults."""
    properties = Settings.model_json_schema()["properties"]
    for name in sorted(Settings.model_fields):
        default = repr(Settings.model_fields[name].get_default(call_default_factory=True)).replace(VERSION, "<version>")
        kind = {key: value for key, value in properties[name].items() if key != "default"}
        yield f"{PREFIX}{name.upper()} = {default} {_kind(kind)}"


PARTS: dict[str, Callable[[], Iterator[str]]] = {
    "openapi.txt": openapi,
    "events.txt": events,
    "labels.txt": labels,
    "metrics.txt": metrics,
    "tables.sql": tables,
    "cli.txt": commands,
    "settings.txt": settings,
}


def text_of(part: str) -> str:
    """Return one part as the code defines it now."""
    return "\n".join(PARTS[part]()).strip() + "\n"


def main() -> None:
    """Write all files of the snapshot."""
    DIRECTORY.mkdir(exist_ok=True)
    for part in PARTS:
        (DIRECTORY / part).write_text(text_of(part))
        sys.stdout.write(f"{DIRECTORY / part}\n")


if __name__ == "__main__":
    main()
