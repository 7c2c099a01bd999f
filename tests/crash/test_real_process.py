"""A real Sluice kills itself at crash points under load and restarts; bench/crash_matrix.py runs all of them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from bench.crash_matrix import COVERING, KINDS, run
from services.rollouts.reconciler.crash_points import POINTS
from tests.support.docker_cli import gateway, hello
from tests.support.sluice_process import SluiceProcess

pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.anyio]
USUAL = {
    ("deploy", "loop:decided"), ("deploy", "half:Admit"), ("deploy", "done:Stop"), ("deploy", "start:restored"),
    ("cutting", "done:ForceClose"), ("recalling", "after:Recall"), ("recreate", "done:Stop"),
    ("failing", "after:MarkDraining"),
}  # fmt: skip
"""One case of each group: before any operation, while admitting, while draining, at the start, each kind of roll-back."""
MAY_LIVE = ("cutting", "recalling", "failing")
"""Scenarios that do not reach each of their crash points every time."""


@pytest.fixture(scope="module")
def sluice(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SluiceProcess]:
    with SluiceProcess(tmp_path_factory.mktemp("sluice"), SLUICE_GATEWAY_IMAGE=gateway()) as made:
        yield made


def test_cases_cover_every_crash_point_and_scenario() -> None:
    assert {point for _, point in COVERING} == set(POINTS)
    assert {kind for kind, _ in COVERING} == set(KINDS)
    assert set(COVERING) > USUAL


@pytest.mark.parametrize(
    ("kind", "point"),
    [pytest.param(*case, marks=() if case in USUAL else pytest.mark.full, id=" ".join(case)) for case in COVERING],
)
async def test_crash_at_point_converges_under_load(sluice: SluiceProcess, kind: str, point: str) -> None:
    rows = await run(sluice, (hello("1"), hello("2")), [(kind, point)], lambda row: None)
    assert [row["died"] or kind in MAY_LIVE for row in rows] == [True], rows
    async with sluice.client() as http:  # leave no services that would load the machine in the next case
        for service in (await http.get("/services")).json()["items"]:
            await http.delete(f"/services/{service['name']}", params={"wait": 60})
