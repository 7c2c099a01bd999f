"""Declarations of routes: their responses with schema and example, and their errors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from app.api.examples import PREVIEW
from app.api.schemas import Deployment, Preview
from app.problems import declared

ALWAYS = ("unauthenticated", "insufficient_scope", "invalid")
CHANGE = (*ALWAYS, "bad_request", "too_large", "store_unavailable")
WAITED = (
    "deployment_failed", "deployment_aborted", "deployment_superseded", "deployment_paused", "stopping", "wait_timeout",
)  # fmt: skip
LOCATION = {"Location": {"description": "the deployment", "schema": {"type": "string"}}}


def read_responses(
    status: int,
    shape: type[BaseModel],
    example: Any,
    *codes: str,
    description: str = "",
    headers: Mapping[str, Any] | None = None,
) -> dict[int | str, dict[str, Any]]:
    """Return the `responses` of a route that answers `status` with `shape`, or an error of `codes`."""
    answer = _answer(shape, example, description or (shape.__doc__ or shape.__name__).splitlines()[0], headers)
    return declared(*codes, also={status: answer})


def create_responses(example: Any, *codes: str) -> dict[int | str, dict[str, Any]]:
    """Return the `responses` of a route that makes a deployment.

    The status is 202, or 200 for a deployment that succeeded with `?wait=` and for a dry run.
    """
    shapes = [{"$ref": f"#/components/schemas/{shape.__name__}"} for shape in (Deployment, Preview)]
    examples = {"succeeded": {"value": example}, "dry_run": {"value": PREVIEW}}
    responses: dict[int | str, Any] = {
        202: _answer(Deployment, example, "accepted: the current state of the deployment", LOCATION),
        200: {
            "description": "with ?wait=: succeeded; with ?dry_run=true: the changes and steps",
            "headers": dict(LOCATION),
            "content": {"application/json": {"schema": {"anyOf": shapes}, "examples": examples}},
        },
    }
    return declared(*CHANGE, *WAITED, "engine_unavailable", *codes, also=responses)


def _answer(shape: type[BaseModel], example: Any, description: str, headers: Mapping[str, Any] | None) -> dict[str, Any]:
    schema = {"$ref": f"#/components/schemas/{shape.__name__}"}
    answer: dict[str, Any] = {
        "description": description,
        "content": {"application/json": {"schema": schema, "example": example}},
    }
    return {**answer, "headers": dict(headers)} if headers else answer
