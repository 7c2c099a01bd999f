"""Seed data for screenshots and accessibility tests: ten services with an hour of traffic.

One service is being deployed, one deployment has failed, and one service is degraded.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlmodel import Session

from services.eureka.registry import Registry
from services.store.tables import Deployment, Instance, Revision, Service, TrafficSample
from services.traffic_metrics.histogram import BUCKETS
from services.traffic_metrics.repository import ALL
from tests.support.dashboard_fixture import DashboardFixture, apart
from tests.support.eureka_payloads import registration

NAMES = ("web", "api", "auth", "billing", "checkout", "images", "ledger", "mail", "reports", "search")
LOG = "loading configuration\nKeyError: 'DATABASE_URL'\nset DATABASE_URL before the start\n"


BUILT = """Step 1/4 : FROM python:3.13-slim
 ---> 1d6f0e2a7b55
Step 2/4 : COPY pyproject.toml uv.lock /app/
 ---> Using cache
 ---> 90a1c24e6f0b
Step 3/4 : RUN uv sync --frozen --no-dev
 ---> Running in 5be2f8b4f7d0
Installed 41 packages in 1.32s
 ---> 3c1d1c0f9a10
Step 4/4 : COPY app /app/app
 ---> 8fd0b2a9ec34
"""


def set_scene(fixture: DashboardFixture) -> None:
    """Write the rows: deployment 1 was rolled back, 2 succeeded, 3 is in progress; all have their events."""
    with _ago(fixture, 5400):
        for name in NAMES:
            fixture.service(name, 3 if name == "web" else 2)
    with _ago(fixture, 700):
        for id in (fixture.deployment("billing"), fixture.deployment("api")):
            fixture.change(Deployment, id, traffic=[{"revision": 1, "percent": 100}])
    for at, status in ((699, "starting"), (696, "ready"), (695.9, "serving")):
        _turn(fixture, at, "api", 2, (1, 2, 3), status)
    _turn(fixture, 694, "api", 1, (1, 2), "draining")
    _turn(fixture, 692, "api", 1, (1, 2), "stopped", stopped_at=_before(fixture, 692))
    fixture.change(Service, "api", revision=2, replicas=3)
    fixture.change(Revision, ("api", 2), served=True)
    _billing_fails(fixture)
    with _ago(fixture, 692):
        fixture.change(
            Deployment, 2, status="succeeded", message="3 of 3 instances serve", finished_at=fixture.sluice.clock.now(),
            progress=_progress(3, 3, 0), traffic=[{"revision": 2, "percent": 100}],
        )  # fmt: skip
    with _ago(fixture, 700):
        fixture.built("api", image="api:20261128-190211-81c4", log=BUILT, status="failed", reason="build_failed",
                    message="the command '/bin/sh -c uv sync' returned a non-zero code: 2", image_id=None)  # fmt: skip
        fixture.built("api", image="api:2", log=BUILT)
    fixture.change(Deployment, 2, group=1, depends_on=[{"deployment": 1, "required": False}])
    fixture.change(Deployment, 1, group=1)
    fixture.change(Instance, "search-r1-2", status="failed", stopped_at=_before(fixture, 60))
    _web_is_deployed(fixture)
    fixture.write(lambda session: _figures(session, int(fixture.sluice.clock.now())))
    apart(_somebody_registers(fixture.sluice.registry))


async def _somebody_registers(registry: Registry) -> None:
    """Register two instances of an application that Sluice does not run, and record a consumer's fetch."""
    for id, status in (("legacy:orders:8080", "UP"), ("legacy:orders:8081", "OUT_OF_SERVICE")):
        await registry.register(registration(id, "ORDERS", vipAddress="orders", status=status), "10.9.0.7")
    registry.record_fetch("10.203.0.9", "DefaultClient/2.0.6", direct=False)


def _billing_fails(fixture: DashboardFixture) -> None:
    why = "billing-r2-1 exited with code 3 before it was ready"
    _turn(fixture, 698, "billing", 2, (1, 2, 3), "starting")
    _turn(
        fixture, 697, "billing", 2, (1,), "failed", failed_deployment=1, exit_code=3, failure=why, log_tail=LOG,
        stopped_at=_before(fixture, 697),
    )  # fmt: skip
    _turn(fixture, 696, "billing", 2, (2, 3), "stopped", stopped_at=_before(fixture, 696))
    with _ago(fixture, 696):
        fixture.change(
            Deployment, 1, status="rolled_back", reason="unhealthy_instance", message=f"{why}; revision 1 serves again",
            finished_at=fixture.sluice.clock.now(), progress={**_progress(3, 0, 2), "failed": 1},
            traffic=[{"revision": 1, "percent": 100}],
        )  # fmt: skip
        fixture.tell(1, "rolled_back", f"{why}; revision 1 serves again")


def _web_is_deployed(fixture: DashboardFixture) -> None:
    with _ago(fixture, 14):
        id = fixture.deployment("web", deadline_at=_before(fixture, -286))
        fixture.change(Deployment, id, traffic=[{"revision": 1, "percent": 100}])
    _turn(fixture, 13, "web", 2, (1, 2, 3), "starting")
    _turn(fixture, 9, "web", 2, (1, 2), "ready")
    with _ago(fixture, 8.5):
        _turn(fixture, 8.5, "web", 2, (1, 2), "serving", ready_at=_before(fixture, 9))
        fixture.change(
            Deployment, id, message="2 of 3 new instances serve", progress=_progress(3, 2, 3),
            traffic=[{"revision": 2, "percent": 40}, {"revision": 1, "percent": 60}],
        )  # fmt: skip
    with _ago(fixture, 5):
        _turn(fixture, 5, "web", 1, (1,), "draining")
        fixture.change(
            Deployment, id, progress={**_progress(3, 2, 2), "draining": 1},
            traffic=[{"revision": 2, "percent": 50}, {"revision": 1, "percent": 50}],
        )  # fmt: skip
    live = fixture.sluice.runtime_status
    live.set_in_flight({"web-r1-1": 4, "web-r1-2": 11, "web-r1-3": 9, "web-r2-1": 8, "web-r2-2": 12})
    live.set_probe("web-r2-3", {"ok": False, "status": 503, "error": "503 from /ready", "at": None})
    effective = {"image": "web:2", "routes": [{"path_prefix": "/web"}], "environment": {"LOG_LEVEL": "info", "CACHE": "64m"}}
    effective["links"] = ["api", "auth"]
    fixture.change(Revision, ("web", 2), effective=effective)


def _turn(
    fixture: DashboardFixture, ago: float, service: str, revision: int, slots: tuple[int, ...], status: str, **fields: Any
) -> None:
    with _ago(fixture, ago):
        for slot in slots:
            fixture.change(Instance, f"{service}-r{revision}-{slot}", status=status, **fields)


def _progress(desired: int, serving: int, old: int) -> dict[str, int]:
    return {"desired": desired, "ready": serving, "serving": serving, "old_serving": old, "draining": 0, "failed": 0}


def _before(fixture: DashboardFixture, seconds: float) -> float:
    return fixture.sluice.clock.now() - seconds


@contextmanager
def _ago(fixture: DashboardFixture, seconds: float) -> Iterator[None]:
    """Date all rows written in the block `seconds` back; a block within another one keeps the outer time."""
    real = fixture.sluice.clock.now
    if real.__name__ == "then":
        yield
        return
    at = real() - seconds

    def then() -> float:
        return at

    fixture.sluice.clock.now = then  # type: ignore[method-assign]
    try:
        yield
    finally:
        fixture.sluice.clock.now = real  # type: ignore[method-assign]


def _figures(session: Session, now: int) -> None:
    """Write an hour of traffic that rises and falls, with errors of the failed deployment's service."""
    for step in (10, 60):
        for at in range(now // step * step - 3600, now // step * step, step):
            session.add(TrafficSample(step=step, at=at, service=ALL, revision=0, requests=1, status_4xx=0, status_5xx=0))
            for place, name in enumerate(NAMES[:-2]):
                asked = int(step * (25 + 9 * place + 14 * math.sin(at / 520 + place) + 3 * math.sin(at * 1.7)))
                wrong = asked // 60 if name == "billing" and now - 760 < at < now - 640 else 0
                revision = 2 if name in ("web", "api") and at > now - 600 else 1
                session.add(
                    TrafficSample(
                        step=step,
                        at=at,
                        service=name,
                        revision=revision,
                        requests=asked,
                        status_4xx=asked // 90,
                        status_5xx=wrong,
                        histogram=_histogram(asked, 7 - revision + math.sin(at / 300)),
                    )
                )


def _histogram(count: int, middle: float) -> list[int]:
    return [int(count * 0.4 * math.exp(-((bucket - middle) ** 2) / 2.2)) for bucket in range(BUCKETS)]
