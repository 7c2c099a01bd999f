"""A real Sluice kills itself at each boundary, under load, and starts again; bench/crash_matrix.py is all of them."""

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
    ("cutting", "done:ForceClose"), ("recalling", "after:Recall"), ("recreate", "done:Stop"), ("failing", "after:Drain"),
}  # fmt: skip
"""One of each group: before anything is done, on the way in, on the way out, at the start, and each way of going back."""
MAY_LIVE = ("cutting", "recalling", "failing")
"""Kinds that do not come by each of their boundaries every time."""


@pytest.fixture(scope="module")
def sluice(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SluiceProcess]:
    with SluiceProcess(tmp_path_factory.mktemp("sluice"), SLUICE_GATEWAY_IMAGE=gateway()) as made:
        yield made


def test_every_boundary_is_among_the_cases() -> None:
    assert {point for _, point in COVERING} == set(POINTS)
    assert {kind for kind, _ in COVERING} == set(KINDS)
    assert set(COVERING) > USUAL


@pytest.mark.parametrize(
    ("kind", "point"),
    [pytest.param(*case, marks=() if case in USUAL else pytest.mark.full, id=" ".join(case)) for case in COVERING],
)
async def test_sluice_dies_at_a_boundary_and_nobody_notices(sluice: SluiceProcess, kind: str, point: str) -> None:
    rows = await run(sluice, (hello("1"), hello("2")), [(kind, point)], lambda row: None)
    assert [row["died"] or kind in MAY_LIVE for row in rows] == [True], rows
    async with sluice.client() as http:  # the next case has the machine to itself
        for service in (await http.get("/services")).json()["items"]:
            await http.delete(f"/services/{service['name']}", params={"wait": 60})
