"""Documents of the API as text: tables, and a page for one service or deployment."""

from __future__ import annotations

from typing import Any

from app.cli.output.console import coloured, columns, pairs
from app.cli.output.messages import Document, ago, in_flight, took

TAIL_LINES = 50


def services_table(services: list[Document], width: int | None) -> str:
    """Format services, one row each."""
    titles = ("SERVICE", "STATE", "SERVING", "REV", "IMAGE", "PROFILE", "URL")
    return columns(titles, [_service_row(service) for service in services], width)


def instances_table(instances: list[Document], width: int | None) -> str:
    """Format instances, one row each; empty if there are none."""
    if not instances:
        return ""
    titles = ("INSTANCE", "STATUS", "REV", "ADDRESS", "IN FLIGHT", "RESTARTS", "AGE")
    fields = ("id", "status", "revision", "address", "in_flight", "restarts")
    return columns(titles, [[*(i.get(name) for name in fields), ago(i.get("created_at"))] for i in instances], width)


def service_table(service: Document, newest: Document | None) -> str:
    """Format a service, followed by its newest deployment."""
    facts = [
        ("service", service["name"]),
        ("status", service["status"]),
        ("state", service.get("state")),
        ("serving", f"{service.get('serving', 0)} of {service.get('replicas', 0)}"),
        ("revision", service.get("revision")),
        ("profile", service.get("profile")),
        ("image", _image(service)),
        ("url", service.get("url")),
        ("internal url", service.get("internal_url")),
        *_warnings(service),
    ]
    return pairs(facts) if newest is None else f"{pairs(facts)}\n\n{deployment_table(newest)}"


def deployment_table(deployment: Document) -> str:
    """Format a deployment with its instances, and the logs of failed ones."""
    named = ("service", "kind", "status", "reason", "message", "revision", "from_revision", "image", "profile", "note")
    facts = [
        ("deployment", deployment["id"]),
        *((name.replace("_", " "), deployment.get(name)) for name in named),
        ("by", (deployment.get("created_by") or {}).get("name")),
        ("started", deployment.get("created_at")),
        ("took", took(deployment)),
        ("retry of", deployment.get("retry_of")),
        ("superseded by", deployment.get("superseded_by")),
        ("traffic", ", ".join(f"revision {t['revision']}: {t['percent']} %" for t in deployment.get("traffic") or [])),
        *_warnings(deployment),
        ("actions", ", ".join(deployment.get("actions") or [])),
    ]
    return "\n".join([pairs(facts), *[_instance(instance) for instance in deployment.get("instances") or []]])


def part(value: Any) -> str:
    """Format on one line what /readyz reports about one part of Sluice's infrastructure."""
    if not isinstance(value, dict):
        return ", ".join(map(_removal, value)) if isinstance(value, list) else str(value)
    if value.get("ok") is False:
        return str(value.get("error"))
    facts = [
        f"{name.replace('_', ' ')} {item}" for name, item in value.items() if name != "ok" and item not in (None, [], "")
    ]
    return ", ".join(["answers", *facts])


def _removal(container: Document) -> str:
    return f"{container.get('name')} (remove it: {container.get('remove')})"


def _service_row(service: Document) -> list[Any]:
    serving = f"{service.get('serving', 0)}/{service.get('replicas', 0)}"
    url = service.get("url") or service.get("internal_url")
    return [
        service["name"],
        _state(service),
        serving,
        service.get("revision"),
        _image(service),
        service.get("profile"),
        url,
    ]


def _state(service: Document) -> Any:
    return "removed" if service["status"] == "removed" else service.get("state")


def _image(service: Document) -> Any:
    return service.get("image") or (service.get("spec") or {}).get("image")


def _warnings(document: Document) -> list[tuple[str, str]]:
    return [("warning", f"{warning['code']}: {warning['message']}") for warning in document.get("warnings") or []]


def _instance(instance: Document) -> str:
    """Format an instance on a line; for a failed one with the reason and the end of its log."""
    status = instance["status"]
    detail = in_flight(instance) if status in ("serving", "draining") else ""
    if status == "unhealthy":
        detail = str(instance.get("unhealthy_reason") or "")
    if status == "failed":
        detail = ", ".join(_symptoms(instance))
    line = f"  {instance['id']:<24} {coloured(status, status.ljust(9))}  {detail}".rstrip()
    tail = (instance.get("log_tail") or "").strip("\n").split("\n")[-TAIL_LINES:]
    return "\n".join([line, *[f"      | {text}" for text in tail if text]])


def _symptoms(instance: Document) -> list[str]:
    probe = instance.get("last_probe") or {"ok": True}
    found = [
        (instance.get("exit_code") is not None, f"exit code {instance.get('exit_code')}"),
        (instance.get("oom_killed"), "out of memory"),
        (not probe.get("ok"), f"last probe: {probe.get('error') or probe.get('status')}"),
    ]
    return [text for there, text in found if there]
