"""Distribution of tests to processes of pytest-xdist."""

from __future__ import annotations

from tests.scheduling import ALONE, LONGEST, ROOT, TOGETHER, group_of, rank_of

MACHINE = "tests/outages/test_engine.py::test_an_engine_that_hangs"


def test_tests_that_share_a_resource_are_one_group() -> None:
    assert group_of(MACHINE) == group_of("tests/outages/test_disk.py::test_full")
    assert group_of("tests/app/api/test_fuzz.py::test_a[x]") == group_of("tests/app/api/test_fuzz.py::test_b")
    assert group_of("tests/app/api/test_fuzz.py::test_a") != group_of("tests/app/api/test_lists.py::test_a")


def test_test_with_containers_of_its_own_is_one_group() -> None:
    assert group_of("tests/e2e/test_upgrades.py::test_a") != group_of("tests/e2e/test_upgrades.py::test_b")


def test_long_groups_come_first_and_those_without_real_parts_last() -> None:
    ranks = [
        rank_of("tests/spring/test_own_registry.py::test_a", real=True),
        rank_of(MACHINE, real=True),
        rank_of("tests/gateway/test_traffic.py::test_a", real=True),
        rank_of("tests/app/api/test_lists.py::test_a", real=False),
    ]
    assert ranks == sorted(set(ranks))


def test_every_scheduled_path_exists() -> None:
    assert [name for name in (*LONGEST, *TOGETHER, *ALONE) if not (ROOT / name).exists()] == []
