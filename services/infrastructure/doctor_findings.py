"""Findings of an examination: one line for each part, with advice."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class DoctorFinding:
    """Finding on one part.

    `warning`: the part works, and needs attention. `wrong`: the part does not work. `advice` is empty if all is well.
    """

    part: str
    status: Literal["ok", "warning", "wrong"]
    detail: str
    advice: str = ""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def ok(part: str, detail: str) -> DoctorFinding:
    return DoctorFinding(part, "ok", detail)


def warning(part: str, detail: str, advice: str) -> DoctorFinding:
    return DoctorFinding(part, "warning", detail, advice)


def wrong(part: str, detail: str, advice: str) -> DoctorFinding:
    return DoctorFinding(part, "wrong", detail, advice)
