"""The end of the controller when its task is cancelled."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import anyio
import pytest

from services.clock import SystemClock
from services.probes import ProbeTarget
from services.readiness import Readiness
from services.rollouts.reconciler.controller import Controller
from services.rollouts.reconciler.ports import Ports
from services.rollouts.requests.admission import AdmissionRules
from services.rollouts.requests.pull_credentials import PullCredentials
from services.rollouts.state.runtime_status import RuntimeStatus
from services.spec import Healthcheck
from services.store.events import ChangeNotifier
from services.store.open import open_store
from tests.support.fakes.engine import FakeEngine
from tests.support.fakes.gateway import FakeGateway


@pytest.mark.anyio
async def test_cancelled_controller_ends_its_workers_and_probes(tmp_path: Path) -> None:
    clock, store, readiness = SystemClock(), open_store(tmp_path), Readiness()
    readiness.report("loop", "not begun")
    engine = FakeEngine(clock)
    ports = Ports(store, clock, engine, [FakeGateway(clock)])
    runner = Controller(ports, ChangeNotifier(), RuntimeStatus(), readiness, PullCredentials(), AdmissionRules())
    before = asyncio.all_tasks()
    with socket.create_server(("127.0.0.1", 0)) as mute:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(runner.run, "10.203.0.0/24", "10.203.0.1")
            with anyio.fail_after(10):
                while "loop" in readiness.not_ready():  # noqa: ASYNC110 - no event reports it
                    await asyncio.sleep(0)
            runner.enqueue("web")
            port = mute.getsockname()[1]
            runner._prober.set_targets(
                ["web-r1-1"], [ProbeTarget("web-r1-1", "1", "127.0.0.1", port, Healthcheck(path="/up"))]
            )
            await asyncio.sleep(0)
            tasks.cancel_scope.cancel()
        assert asyncio.all_tasks() == before
    engine.close()
    store.close()
