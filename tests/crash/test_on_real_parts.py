"""A real Sluice kills itself at each boundary, under load, and starts again; bench/crash_matrix.py is all of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.crash_matrix import COVERING, run
from bench.engine import ROOT, build, hello
from bench.stage import Sluice
from services.rollouts.crash_points import POINTS

pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.anyio]
GATEWAY = "sluice-bench/gateway"


@pytest.mark.timeout(1200)
async def test_it_dies_at_each_boundary_and_nobody_notices(tmp_path: Path) -> None:
    assert {point for _, point in COVERING} == set(POINTS)
    build(GATEWAY, ROOT / "services" / "gateway")
    with Sluice(tmp_path, SLUICE_GATEWAY_IMAGE=GATEWAY) as sluice:
        rows = await run(sluice, (hello("1"), hello("2")), COVERING, lambda row: None)
    alive = [row for row in rows if not row["died"]]
    assert not [row for row in alive if row["kind"] not in ("cutting", "recalling", "failing")], alive
