"""Comparison of two checkouts: deployments against their floor, the gateway against a bare HAProxy.

    python -m bench.pairs OLD NEW [--pairs 5]

OLD and NEW are directories of two checkouts. The first one of each pair alternates. The comparison of a figure is the
median of its ratios new ÷ old, one ratio for each pair, so that a machine that becomes slower does not count as a change.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from bench.report import median, save, spread, table
from bench.sizes import measure

DEPLOYMENTS = ("bench.deployments", "--deployments", "20", "--rounds", "7")
THROUGHPUT = ("bench.throughput", "--pairs", "3", "--seconds", "2")
LIMIT = 0.05
"""Largest difference of a compared figure that counts as none."""


def measured(tree: Path, module: str, *words: str) -> dict[str, Any]:
    """Run a bench in a checkout and return its results. A bar that the bench misses is no error here."""
    name = module.removeprefix("bench.")
    results = tree / "bench" / "results" / f"{name}.json"
    results.unlink(missing_ok=True)
    done = subprocess.run([sys.executable, "-m", module, *words], cwd=tree, capture_output=True, text=True)
    if not results.exists():
        raise RuntimeError(f"{tree}: {module} wrote no results: {done.stdout[-500:]} {done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(results.read_text(encoding="utf-8"))
    return found


def figures(deployments: dict[str, Any], throughput: dict[str, Any]) -> dict[str, float]:
    """Return the compared figures of one run of both benches."""
    load, floor = deployments["under_load"], deployments["against_the_floor"]
    ratios = {f"gateway / bare HAProxy, {row['way']}, {row['mode']}": row["ratio"] for row in throughput["rows"]}
    return {
        "deployment / floor": floor["ratio_of_medians"],
        "seconds per deployment under load": load["seconds"] / load["deployments"],
        **ratios,
    }


def lost(deployments: dict[str, Any]) -> int:
    """Return the number of requests that were lost, run twice or not recorded."""
    load = deployments["under_load"]
    return int(load["lost"] + load["run_twice"] + load["unrecorded"])


def compare(runs: dict[str, list[dict[str, float]]]) -> list[dict[str, Any]]:
    """Return a row for each figure: both medians, and the median and spread of the ratios new ÷ old."""
    rows = []
    for name in runs["old"][0]:
        old, new = ([run[name] for run in runs[side]] for side in ("old", "new"))
        ratios = [after / before for before, after in zip(old, new, strict=True)]
        rows.append(
            {"figure": name, "old": median(old), "new": median(new), "new / old": median(ratios), "spread": spread(ratios)}
        )
    return rows


def show(rows: list[dict[str, Any]]) -> str:
    return table(list(rows[0]), [list(row.values()) for row in rows])


def run(trees: dict[str, Path], pairs: int) -> int:
    runs: dict[str, list[dict[str, float]]] = {"old": [], "new": []}
    bad = {"old": 0, "new": 0}
    for number in range(pairs):
        for side in ("new", "old") if number % 2 else ("old", "new"):
            deployments = measured(trees[side], *DEPLOYMENTS)
            bad[side] += lost(deployments)
            runs[side].append(figures(deployments, measured(trees[side], *THROUGHPUT)))
    rows = compare(runs)
    print(show(rows))
    result = {
        "trees": {
            side: subprocess.check_output(["git", "-C", tree, "rev-parse", "HEAD"], text=True).strip()
            for side, tree in trees.items()
        },
        "lost": bad,
        "figures": rows,
        "sizes": {side: measure(tree) for side, tree in trees.items()},
        "runs": runs,
    }
    print(f"lost: {bad}; saved to {save('pairs', result)}")
    return int(any(bad.values()) or any(abs(row["new / old"] - 1) > LIMIT for row in rows))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("--pairs", type=int, default=5)
    given = parser.parse_args()
    raise SystemExit(run({"old": given.old.resolve(), "new": given.new.resolve()}, given.pairs))


if __name__ == "__main__":
    main()
