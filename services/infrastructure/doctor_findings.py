"""What an examination finds: one line a part, and what to do about it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class Finding:
    """`warning`: it works, and somebody should see to it. `wrong`: it does not. `advice` is empty where all is well."""

    part: str
    status: Literal["ok", "warning", "wrong"]
    detail: str
    advice: str = ""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def ok(part: str, detail: str) -> Finding:
    return Finding(part, "ok", detail)


def warning(part: str, detail: str, advice: str) -> Finding:
    return Finding(part, "warning", detail, advice)


def wrong(part: str, detail: str, advice: str) -> Finding:
    return Finding(part, "wrong", detail, advice)
