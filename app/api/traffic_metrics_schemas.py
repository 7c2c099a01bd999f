"""The shapes of a service's figures, for the documentation (see shapes.py)."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel


class FiguresTotals(BaseModel):
    """Of the whole window; times in seconds until the answer began."""

    requests: int
    status_4xx: int
    errors: int
    error_rate: float | None
    p50: float | None
    p95: float | None
    p99: float | None


class FiguresOfRevision(BaseModel):
    """Lists are in step with `times`. `revision` null: what the gateway itself answered."""

    revision: int | None
    totals: FiguresTotals
    requests_per_second: list[float | None]
    error_rate: list[float | None]
    p50: list[float | None]
    p95: list[float | None]
    p99: list[float | None]


class Figures(BaseModel):
    """Requests, errors and latency of one service. `step`: seconds from one of `times` to the next."""

    service: str
    step: int
    times: list[datetime]
    totals: FiguresTotals
    revisions: list[FiguresOfRevision]
