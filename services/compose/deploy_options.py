"""Conversion of `healthcheck`, `deploy`, `logging`, limits and `restart` to the spec's fields."""

from __future__ import annotations

from typing import Any

from services.compose.document import Node
from services.compose.findings import Findings
from services.compose.keys import DEPLOY, HEALTHCHECK, LIMITS, LOGGING, RESERVATIONS, RESOURCES, RESTART, UPDATE

COMPOSE_TIMEOUT = 30.0
"""Seconds that a health check may take by default: Compose's default."""
JOB = "Sluice keeps services running; run jobs by hand or in CI"
Fields = dict[str, tuple[Any, Node]]
"""Spec field → value and node."""


def healthcheck(findings: Findings, node: Node) -> Fields:
    """Return the health check, {} if the section sets none and the image's own applies."""
    keys = findings.keys(node, HEALTHCHECK)
    if "disable" in keys and findings.flag(keys["disable"]):
        return {"healthcheck": ({"disable": True}, node)}
    check: dict[str, Any] = {}
    if "test" in keys:
        test = keys["test"]
        command = [findings.text(item) for item in test.value] if isinstance(test.value, list) else None
        if command == ["NONE"]:
            return {"healthcheck": ({"disable": True}, node)}
        check["test"] = command if command is not None else ["CMD-SHELL", findings.text(test)]
    for name in ("interval", "timeout", "start_period"):
        if name in keys:
            check[name] = findings.seconds(keys[name])
    if "retries" in keys:
        check["retries"] = findings.whole(keys["retries"])
    if check and "test" not in check:
        findings.refuse(
            node, "needs a test: the times of the image's own check cannot be changed; use x-sluice: {healthcheck: …}"
        )
    return {"healthcheck": ({"timeout": COMPOSE_TIMEOUT, **check}, node)} if check else {}


def deploy(findings: Findings, node: Node) -> Fields:
    keys = findings.keys(node, DEPLOY)
    fields: Fields = {}
    if "mode" in keys and findings.text(keys["mode"]) not in (None, "replicated"):
        findings.refuse(keys["mode"], "must be replicated")
    if "replicas" in keys:
        fields["replicas"] = (findings.whole(keys["replicas"]), keys["replicas"])
    if "resources" in keys:
        fields |= _resources(findings, keys["resources"])
    if "update_config" in keys:
        fields |= _update(findings, keys["update_config"])
    if "restart_policy" in keys:
        policy = findings.keys(keys["restart_policy"], RESTART)
        if "condition" in policy:
            _restart(findings, policy["condition"], findings.text(policy["condition"]) or "any")
    return fields


def scale_and_limits(findings: Findings, keys: dict[str, Node]) -> Fields:
    """Return the size and the limits written beside `image`, as in older files."""
    fields: Fields = {}
    if "scale" in keys:
        fields["replicas"] = (findings.whole(keys["scale"]), keys["scale"])
    values: dict[str, Any] = {}
    places = [keys[name] for name in ("cpus", "mem_limit", "pids_limit") if name in keys]
    if "cpus" in keys:
        values["cpus"] = findings.number(keys["cpus"])
    if "mem_limit" in keys:
        values["memory"] = findings.bytes(keys["mem_limit"])
    if "pids_limit" in keys:
        values["pids"] = findings.whole(keys["pids_limit"])
    return {**fields, "resources": (values, places[0])} if values else fields


def unite(findings: Findings, fields: Fields, older: Fields) -> None:
    """Add the fields beside `image` to those of `deploy`; a field in both must have one value."""
    for name, (value, node) in older.items():
        present, place = fields.get(name, (None, node))
        if isinstance(value, dict) and isinstance(present, dict):
            unequal = [limit for limit in value if limit in present and present[limit] != value[limit]]
            fields[name] = ({**value, **present}, place)
        else:
            unequal = [name] if present not in (None, value) else []
            fields.setdefault(name, (value, node))
        if unequal:
            findings.refuse(node, f"is not the {unequal[0]} of {place.path} (line {place.line}); write it once")


def logging(findings: Findings, node: Node) -> Fields:
    keys = findings.keys(node, LOGGING)
    values: dict[str, Any] = {"driver": findings.text(keys["driver"])} if "driver" in keys else {}
    if "options" in keys:
        values["options"] = {name: text for name, text, _ in findings.pairs(keys["options"])}
    return {"logging": (values, node)} if values else {}


def restart(findings: Findings, node: Node) -> None:
    """Check `restart`. It sets no field, because Sluice always restarts instances that have served."""
    _restart(findings, node, (findings.text(node) or "always").partition(":")[0])


def _restart(findings: Findings, node: Node, policy: str) -> None:
    if policy in ("no", "none", "false"):
        findings.refuse(node, JOB)
    elif policy == "on-failure":
        findings.warn(node, "restarted after every exit: Sluice keeps services running")
    elif policy not in ("always", "unless-stopped", "any"):
        findings.refuse(node, "must be always, unless-stopped or on-failure")


def _resources(findings: Findings, node: Node) -> Fields:
    keys = findings.keys(node, RESOURCES)
    if "reservations" in keys:
        findings.keys(keys["reservations"], RESERVATIONS)
    if "limits" not in keys:
        return {}
    limits_node = findings.keys(keys["limits"], LIMITS)
    values: dict[str, Any] = {}
    if "cpus" in limits_node:
        values["cpus"] = findings.number(limits_node["cpus"])
    if "memory" in limits_node:
        values["memory"] = findings.bytes(limits_node["memory"])
    if "pids" in limits_node:
        values["pids"] = findings.whole(limits_node["pids"])
    return {"resources": (values, keys["limits"])} if values else {}


def _update(findings: Findings, node: Node) -> Fields:
    """Return the rollout fields of update_config.

    If parallelism or order is given, parallelism defaults to one instance at a time, as in Compose, and order to
    start-first.
    """
    keys = findings.keys(node, UPDATE)
    fields: Fields = {}
    if "parallelism" in keys or "order" in keys:
        place = keys.get("parallelism", node)
        count = findings.whole(keys["parallelism"]) if "parallelism" in keys else 1
        order = findings.text(keys["order"]) if "order" in keys else "start-first"
        if order not in (None, "start-first", "stop-first"):
            findings.refuse(keys["order"], "must be start-first or stop-first")
        wave: int | str | None = "100%" if count == 0 else count
        surge, unavailable = (0, wave) if order == "stop-first" else (wave, 0)
        fields |= {"max_surge": (surge, place), "max_unavailable": (unavailable, place)}
    if "monitor" in keys:
        fields["min_ready_seconds"] = (findings.seconds(keys["monitor"]), keys["monitor"])
    if "failure_action" in keys:
        action = findings.text(keys["failure_action"])
        if action == "continue":
            findings.refuse(keys["failure_action"], "Sluice never continues with a failing version; use rollback or pause")
        fields["failure_action"] = (action, keys["failure_action"])
    return fields
