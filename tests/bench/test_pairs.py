"""Comparison of two checkouts, and the sizes of their packages."""

from __future__ import annotations

from pathlib import Path

from bench.pairs import compare
from bench.sizes import measure


def test_comparison_is_the_median_of_the_ratios_of_each_pair() -> None:
    runs = {"old": [{"s": 1.0}, {"s": 10.0}, {"s": 2.0}], "new": [{"s": 1.1}, {"s": 10.0}, {"s": 4.0}]}
    (row,) = compare(runs)
    assert (row["figure"], row["old"], row["new"]) == ("s", 2.0, 4.0)
    assert round(row["new / old"], 6) == 1.1


def test_import_cycle_and_edges_between_parts_are_found(tmp_path: Path) -> None:
    package = tmp_path / "services" / "gateway"
    for part, text in {"config": "", "runtime": "from services.gateway.config import model\n"}.items():
        (package / part).mkdir(parents=True)
        (package / part / "__init__.py").write_text(text)
    (package / "config" / "model.py").write_text("from services.gateway.runtime import x\n")
    sizes = measure(tmp_path)
    assert sizes["packages"]["services.gateway"]["edges_between_parts"] == 2
    assert set(sizes["cycle"]) == {"services.gateway.config.model", "services.gateway.runtime"}
