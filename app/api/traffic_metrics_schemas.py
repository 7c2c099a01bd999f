"""Response schemas of a service's traffic metrics, for the documentation (see schemas.py)."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel


class FiguresTotals(BaseModel):
    """Totals of the whole window; latencies are seconds until the response began."""

    requests: int
    status_4xx: int
    errors: int
    error_rate: float | None
    p50: float | None
    p95: float | None
    p99: float | None


class FiguresOfRevision(BaseModel):
    """Traffic metrics of a revision; the lists correspond to `times`.

    `revision` is null for responses of the gateway itself.
    """

    revision: int | None
    totals: FiguresTotals
    requests_per_second: list[float | None]
    error_rate: list[float | None]
    p50: list[float | None]
    p95: list[float | None]
    p99: list[float | None]


class Figures(BaseModel):
    """Requests, errors and latency of one service.

    `step` is the number of seconds from one of `times` to the next.
    """

    service: str
    step: int
    times: list[datetime]
    totals: FiguresTotals
    revisions: list[FiguresOfRevision]
