"""HAProxy's own health checks of admitted instances.

The request of a check comes from maps. The rule that judges the answer is one policy per backend.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

from services.gateway.config.model import RUN_DIRECTORY
from services.routing.port import Endpoint
from services.spec import HEALTHCHECK_USER_AGENT, Healthcheck

SuccessRule = Literal["connects", "below_500", "succeeds"]
_MILDEST_FIRST: Final[tuple[SuccessRule, ...]] = ("connects", "below_500", "succeeds")
_PATH = re.compile(r"/[A-Za-z0-9\-._~!$&'()*+,;=:@%/?]*")
_HEADER = re.compile(r"[A-Za-z0-9_-]+")
"""Pattern of the header names that a check can send.

HTTP allows other names, but their characters are special in haproxy.cfg. A check with such a name only connects.
"""
_VALUE = re.compile(r"[\x20-\x7e]*")


@dataclass(frozen=True)
class CheckPolicy:
    """Rule by which a backend judges all its instances; `timeout` is in seconds."""

    success_rule: SuccessRule
    timeout: float
    headers: tuple[str, ...] = ()


def least_strict_policy(checks: Iterable[Healthcheck | None]) -> CheckPolicy:
    """Return the least strict policy that any of the checks asks for.

    No instance may be judged by a stricter rule than its own.
    """
    enabled = [check for check in checks if check is not None and not check.disable]
    rules = {_success_rule(check) for check in enabled}
    rule: SuccessRule = next((each for each in _MILDEST_FIRST if each in rules), "succeeds")
    headers = sorted({name for check in enabled for name in check.headers}) if rule != "connects" else []
    return CheckPolicy(rule, max((check.timeout for check in enabled), default=2), tuple(headers))


def is_stricter(current: CheckPolicy, desired: CheckPolicy) -> bool:
    """Return whether `current` could fail an instance that is healthy by `desired`."""
    return (
        _MILDEST_FIRST.index(current.success_rule) > _MILDEST_FIRST.index(desired.success_rule)
        or current.timeout < desired.timeout
        or (current.success_rule != "connects" and not set(desired.headers) <= set(current.headers))
    )


def check_lines(policy: CheckPolicy) -> list[str]:
    """Return the backend's lines that configure the checks of its instances.

    `linger`: a check ends with FIN. HAProxy would send RST, which applications report as an error.
    """
    lines = [f"    timeout check {int(policy.timeout * 1000)}ms"]
    if policy.success_rule == "connects":
        return [*lines, "    option tcp-check", "    tcp-check connect linger"]
    request = f"srv_name,map({RUN_DIRECTORY}/checks.map)"
    send = f"    http-check send meth GET uri-lf %[{request},field(2,|)] ver HTTP/1.1"
    configured = {name.lower() for name in policy.headers}
    if "host" not in configured:
        send += f" hdr Host %[{request},field(1,|)]"
    if "connection" not in configured:
        send += " hdr Connection close"
    if "user-agent" not in configured:
        send += f" hdr User-Agent {HEALTHCHECK_USER_AGENT}"
    for name in policy.headers:
        # An instance of another revision may not configure the header.
        default = f",{HEALTHCHECK_USER_AGENT}" if name.lower() == "user-agent" else ""
        send += f" hdr {name} %[srv_name,concat(/{name}),map({RUN_DIRECTORY}/headers.map{default})]"
    expect = "200-399" if policy.success_rule == "succeeds" else "100-499"
    return [*lines, "    option httpchk", "    http-check connect linger", send, f"    http-check expect status {expect}"]


def check_map(endpoint: Endpoint) -> dict[str, str]:
    """Return `instance` → `host|path`, the request of the endpoint's checks.

    Raises ValueError if the check's path is not valid.
    """
    check = endpoint.healthcheck
    if check.disable or _success_rule(check) == "connects":
        return {}
    path = check.path or "/"
    if not _PATH.fullmatch(path):
        raise ValueError(f"not a path: {path!r}")
    return {endpoint.id: f"{endpoint.address}:{check.port or endpoint.port}|{path}"}


def header_map(endpoint: Endpoint) -> dict[str, str]:
    """Return `instance/name` → value of each header that the endpoint's checks send."""
    if _success_rule(endpoint.healthcheck) == "connects":
        return {}
    return {f"{endpoint.id}/{name}": value for name, value in endpoint.healthcheck.headers.items() if value.strip()}


def _success_rule(check: Healthcheck) -> SuccessRule:
    if check.any_below_500:
        return "below_500"
    if check.path is None or not all(
        _HEADER.fullmatch(name) and _VALUE.fullmatch(value) for name, value in check.headers.items()
    ):
        return "connects"
    return "succeeds"
