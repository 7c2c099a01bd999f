"""Data of the API stub: recorded requests, documents as in docs/api.md, and the steps of a deployment."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

Document = dict[str, Any]


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: Any


@dataclass
class Step:
    """An event, and the changes to the documents that come with it."""

    type: str
    message: str = ""
    instance: str | None = None
    deployment: Document = field(default_factory=dict)
    about_instance: Document = field(default_factory=dict)


def instance(name: str, service: str, revision: int, status: str, **more: Any) -> Document:
    return {
        "id": name, "service": service, "revision": revision, "slot": int(name.rsplit("-", 1)[1]), "status": status,
        "address": "10.203.0.15:8080", "host_port": None, "container_id": "c0ffee", "node": "here", "in_flight": 0,
        "restarts": 0, "created_at": "2026-11-24T20:00:00.000Z", "ready_at": None, "exit_code": None, "oom_killed": False,
        "last_probe": None, "log_tail": None, **more,
    }  # fmt: skip


def script(outcome: str, deployment: Document) -> list[Step]:
    """Return the steps of `deployment`, the last of them with the status `outcome`."""
    service, old = deployment["service"], deployment["instances"][0]["id"]
    new = [f"{service}-r{deployment['revision']}-{n}" for n in (1, 2)]
    end = {"finished_at": "2026-11-24T20:00:04.200Z", "actions": []}
    begin = [
        Step("created", "deploy requested by ci"),
        Step("progressing", "begun"),
        *[Step("instance_starting", f"{name} started at 10.203.0.15", name) for name in new],
    ]
    serve = [
        *[Step("instance_ready", f"{name} is ready", name) for name in new],
        *[Step("instance_serving", f"{name} serves", name, about_instance={"in_flight": 1}) for name in new],
        Step("progress", "2 of 2 new instances serve", deployment={"progress": {"desired": 2, "serving": 2}}),
    ]
    leave = [
        Step("instance_draining", f"{old} draining: no new requests", old, about_instance={"in_flight": 2}),
        Step("instance_stopping", f"{old} drained; sending the stop signal", old),
        Step("instance_stopped", f"{old} removed", old),
    ]
    broken = Step(
        "instance_failed", f"{new[0]} exited with code 1", new[0],
        about_instance={"exit_code": 1, "log_tail": "starting up\n\x1b[31mKeyError: 'DATABASE_URL'\x1b[0m\n"},
    )  # fmt: skip
    reason = {"reason": "unhealthy_instance", "message": f"{new[0]} exited with 1"}
    back = Step("rolling_back", reason["message"], deployment={"status": "rolling_back", **reason})
    match outcome:
        case "unchanged":
            return [Step("succeeded", "nothing to change")]
        case "paused":
            return [*begin, broken, Step("paused", reason["message"], deployment={"status": "paused", **reason})]
        case "superseded":
            news = {"status": "superseded", "reason": "newer_revision", "superseded_by": 18, **end}
            return [*begin, Step("superseded", "a newer one", deployment=news)]
        case "aborted":
            return [
                *begin,
                Step("aborted", "", deployment={"status": "aborted", "reason": "user", "message": "aborted by ci", **end}),
            ]
        case "rolled_back" | "failed" | "rollback_failed":
            return [*begin, broken, back, Step(outcome, "", deployment={"status": outcome, **end})]
        case _:
            return [*begin, *serve, *leave, Step("succeeded", "2 of 2", deployment={"status": "succeeded", **end})]


def problem(status: int, code: str, detail: str, errors: list[Document] | None = None) -> Document:
    title = {401: "Unauthorized", 404: "Not Found", 409: "Conflict", 422: "Unprocessable Content"}.get(status, "Error")
    document = {"type": "about:blank", "title": title, "status": status, "detail": detail, "code": code}
    return {**document, "errors": errors} if errors else document


def page(items: list[Document], request: Request) -> Document:
    """Return a page of two items, so that clients must read several pages."""
    start, most = int(request.query.get("cursor", 0)), min(2, int(request.query.get("limit", 50)))
    following = start + most
    return {"items": items[start:following], "next": str(following) if following < len(items) else None}
