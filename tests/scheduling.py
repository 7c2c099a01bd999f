"""Grouping of tests that run in the same process of pytest-xdist, and the order of these groups.

The mark `xdist_group` has no effect with pytest 9.2 and xdist 3.8: it sets a node id that pytest no longer reads.
"""

from __future__ import annotations

from pathlib import Path

from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]

ROOT = Path(__file__).parents[1]

LONGEST = (
    "tests/spring/test_own_registry.py", "tests/outages/", "tests/rollouts/reconciler/test_random_histories.py",
    "tests/crash/test_simulated.py", "tests/rollouts/planner/test_planner_properties.py", "tests/crash/test_real_process.py",
    "tests/e2e/test_upgrades.py", "tests/e2e/test_gateway_dies.py", "tests/scripts/test_upgrade.py",
    "tests/spring/test_external_eureka.py", "tests/scripts/test_demo.py", "tests/engine/docker/test_engine.py",
    "tests/contract/test_engine.py",
)  # fmt: skip
"""Groups that start first, in this order, so that none of them runs alone at the end."""
TOGETHER = ("tests/outages/",)
"""Directories that are one group: their tests share a separate Docker engine, which is slow to start."""
ALONE = ("tests/crash/test_real_process.py", "tests/e2e/", "tests/gateway/")
"""Paths in which each test is a group: it makes its own containers, or shares those of its process."""


def group_of(nodeid: str) -> str:
    """Return the test's group: a directory of TOGETHER, a test of ALONE, else its file, for the fixtures."""
    shared = next((directory for directory in TOGETHER if nodeid.startswith(directory)), None)
    return shared or (nodeid if nodeid.startswith(ALONE) else nodeid.partition("::")[0])


def rank_of(nodeid: str, *, real: bool) -> int:
    """Return the group's place in the order: the longest, those on real parts, the others."""
    longest = (place for place, start in enumerate(LONGEST) if nodeid.startswith(start))
    return next(longest, len(LONGEST) + (0 if real else 1))


class ByResource(LoadScopeScheduling):  # type: ignore[misc]
    def _split_scope(self, nodeid: str) -> str:
        return group_of(nodeid)
