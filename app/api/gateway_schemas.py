"""Response schemas of the gateway and the doctor, for the documentation (see schemas.py)."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel


class OldWorker(BaseModel):
    """An old gateway process that only finishes its requests; `upgraded` if its container was replaced."""

    pid: int
    uptime: float
    replaced_for: float
    upgraded: bool


class GatewayState(BaseModel):
    """The gateway's state; `outdated` is why it differs from one created today, null if it does not."""

    answers: bool
    version: str | None
    uptime: float | None
    image: str
    outdated: str | None
    upgrading: bool
    old_workers: list[OldWorker]


class Finding(BaseModel):
    """The finding for one part; `advice` is empty if the part is well."""

    part: str
    status: Literal["ok", "warning", "wrong"]
    detail: str
    advice: str


class Examination(BaseModel):
    """The result of an examination; `unwell` if something is wrong."""

    status: Literal["well", "unwell"]
    findings: list[Finding]


class GatewayUpgrade(BaseModel):
    """The result of an upgrade.

    The status is `unchanged` if the gateway was up to date. `seconds` is the time for which the gateway accepted no
    change.
    """

    status: Literal["upgraded", "unchanged"]
    container_id: str | None
    previous_id: str | None
    seconds: float
