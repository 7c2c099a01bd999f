"""The OpenAPI document: FastAPI's own, with the schemas of bodies, responses and problems."""

from __future__ import annotations

from typing import Any, Literal

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from app.api import apply, deployments, gateway, gateway_schemas, registry_schemas, services, tokens, traffic_metrics_schemas
from app.api import schemas as shapes
from app.problems import ProblemShape
from services.spec import ServiceSpec

_REF = "#/components/schemas/{model}"
_ANSWERS: list[type[BaseModel]] = [
    value
    for module in (shapes, gateway_schemas, traffic_metrics_schemas, registry_schemas)
    for value in vars(module).values()
    if isinstance(value, type) and issubclass(value, BaseModel) and value is not BaseModel
]
_ASKED: list[type[BaseModel]] = [
    deployments.Envelope,
    deployments.Empty,
    services.Scale,
    services.Rollback,
    services.Restart,
    tokens.TokenBody,
    tokens.NoBody,
    gateway.UpgradeBody,
    apply.ComposeBody,
]

_ABOUT = "Deploys, scales and monitors containerised services on Docker without losing a request."


def install(app: FastAPI) -> None:
    """Make `app.openapi()` return the complete document."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = document(app)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def document(app: FastAPI) -> dict[str, Any]:
    made = get_openapi(title=app.title, version=app.version, description=_ABOUT, routes=app.routes)
    schemas = made.setdefault("components", {}).setdefault("schemas", {})
    schemas.update(_schemas(_ANSWERS, "serialization"))
    schemas.update(_schemas([*_ASKED, ServiceSpec], "validation"))
    schemas["Problem"] = ProblemShape.model_json_schema(ref_template=_REF) | {"title": "Problem"}
    schemas.update(schemas["Problem"].pop("$defs", {}))
    schemas["DeploymentBody"] = _deployment_body(schemas.pop("Envelope"), schemas["ServiceSpec"])
    return made


def _schemas(models: list[type[BaseModel]], mode: Literal["validation", "serialization"]) -> dict[str, Any]:
    _, definitions = models_json_schema([(model, mode) for model in models], ref_template=_REF)
    made: dict[str, Any] = definitions["$defs"]
    return made


def _deployment_body(envelope: dict[str, Any], spec: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of a deployment's body: `service` and its companions beside any field of the spec.

    Each field may be null: RFC 7396 removes it.
    """
    fields = {name: _or_null(schema) for name, schema in spec["properties"].items()}
    return {
        "title": "DeploymentBody",
        "type": "object",
        "required": ["service"],
        "properties": {**envelope["properties"], **fields},
        "additionalProperties": False,
    }


def _or_null(schema: dict[str, Any]) -> dict[str, Any]:
    plain = {key: value for key, value in schema.items() if key != "default"}
    return plain if {"type": "null"} in plain.get("anyOf", []) else {"anyOf": [plain, {"type": "null"}]}
