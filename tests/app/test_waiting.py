"""The message of a deployment names the instance for which it waits, and the reason."""

from __future__ import annotations

import pytest

from app.presenters.waiting import waiting_for
from services.rollouts.state.runtime_status import InstanceStop, RuntimeStatus
from services.store.tables import Deployment, Instance

STOP = InstanceStop(1000, "SIGTERM", 30)


def instance(id: str, status: str) -> Instance:
    return Instance(
        id=id,
        service="web",
        revision=1,
        deployment=1,
        slot=1,
        address="10.0.0.2",
        hash="",
        status=status,
        created_at=0,
    )


def clause(status: RuntimeStatus, *instances: Instance, serving: int = 2) -> str:
    row = Deployment(service="web", kind="deploy", created_at=0, progress={"serving": serving, "desired": 2})
    return waiting_for(row, instances, status, 1015)


def test_deployment_waits_for_the_instance_that_is_killed_last() -> None:
    status = RuntimeStatus()
    status.set_stop("web-r3-1", STOP)
    status.set_stop("web-r3-2", InstanceStop(1010, "SIGQUIT", 10))
    first, second = instance("web-r3-1", "stopping"), instance("web-r3-2", "stopping")
    assert clause(status, first) == "waiting for web-r3-1 to stop: SIGTERM 15 s ago, killed at 30 s"
    assert clause(status, first, second) == "waiting for web-r3-1 and 1 more to stop: SIGTERM 15 s ago, killed at 30 s"
    status.forget_instance("web-r3-1")
    assert clause(status, first, second) == "waiting for web-r3-2 to stop: SIGQUIT 5 s ago, killed at 10 s"


@pytest.mark.parametrize(
    ("serving", "expected"),
    [(1, "waiting for web-r4-2 to be healthy: answered 503"), (2, "waiting for web-r3-1 to drain: 1 request in flight")],
)
def test_missing_instance_comes_before_one_that_drains(serving: int, expected: str) -> None:
    status = RuntimeStatus()
    status.set_probe("web-r4-2", {"ok": False, "status": 503, "error": "answered 503", "at": 1.0})
    status.set_in_flight({"web-r3-1": 1})
    assert clause(status, instance("web-r3-1", "draining"), instance("web-r4-2", "starting"), serving=serving) == expected


def test_deployment_without_such_an_instance_waits_for_none() -> None:
    assert clause(RuntimeStatus(), instance("web-r3-1", "draining"), instance("web-r4-1", "serving")) == ""
