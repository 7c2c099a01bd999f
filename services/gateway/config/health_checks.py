"""HAProxy's own health checks of admitted instances.

The request of a check comes from maps. The rule that judges the answer is one policy per backend.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

from services.gateway.config.model import INSIDE
from services.routing.port import Endpoint
from services.spec import Healthcheck

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
    asked = [check for check in checks if check is not None and not check.disable]
    judgements = {_success_rule(check) for check in asked}
    judgement: SuccessRule = next((each for each in _MILDEST_FIRST if each in judgements), "succeeds")
    headers = sorted({name for check in asked for name in check.headers}) if judgement != "connects" else []
    return CheckPolicy(judgement, max((check.timeout for check in asked), default=2), tuple(headers))


def is_stricter(present: CheckPolicy, wanted: CheckPolicy) -> bool:
    """Return whether `present` could fail an instance that is healthy by `wanted`."""
    return (
        _MILDEST_FIRST.index(present.success_rule) > _MILDEST_FIRST.index(wanted.success_rule)
        or present.timeout < wanted.timeout
        or (present.success_rule != "connects" and not set(wanted.headers) <= set(present.headers))
    )


def check_lines(style: CheckPolicy) -> list[str]:
    """Return the backend's lines that configure the checks of its instances."""
    lines = [f"    timeout check {int(style.timeout * 1000)}ms"]
    if style.success_rule == "connects":
        return lines
    asked = f"srv_name,map({INSIDE}/checks.map)"
    send = f"    http-check send meth GET uri-lf %[{asked},field(2,|)] ver HTTP/1.1"
    given = {name.lower() for name in style.headers}
    if "host" not in given:
        send += f" hdr Host %[{asked},field(1,|)]"
    if "connection" not in given:
        send += " hdr Connection close"
    for name in style.headers:
        send += f" hdr {name} %[srv_name,concat(/{name}),map({INSIDE}/headers.map)]"
    expect = "200-399" if style.success_rule == "succeeds" else "100-499"
    return [*lines, "    option httpchk", send, f"    http-check expect status {expect}"]


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
