"""Results as a table for people and as JSON for programs, each with the machine that was measured."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.support.docker_cli import docker

RESULTS = Path(__file__).parent / "results"


def machine() -> dict[str, Any]:
    """Return the properties of the machine that results depend on, and its load from other programs."""
    with open("/proc/cpuinfo", encoding="utf-8") as lines:
        models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "cores": os.cpu_count(),
        "cpu": models[0] if models else platform.machine(),
        "load_average": [round(value, 2) for value in os.getloadavg()],
        "engine": docker("version", "--format", "{{.Server.Version}}"),
    }


def save(name: str, figures: Mapping[str, Any]) -> Path:
    """Write bench/results/<name>.json, and return its path."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps({"machine": machine(), **figures}, indent=2) + "\n", encoding="utf-8")
    return path


def table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Format a table with aligned columns, numbers to the right."""
    shown = [[_text(cell) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in [list(head), *shown]) for column in range(len(head))]
    number = [all(_is_number(row[column]) for row in rows) for column in range(len(head))]
    lines = [list(head), ["-" * width for width in widths], *shown]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(line, widths, number, strict=True)
        ).rstrip()
        for line in lines
    )


def median(values: Sequence[float]) -> float:
    ordered = sorted(values)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


def spread(values: Sequence[float]) -> str:
    return f"{min(values):.2f}-{max(values):.2f}"


def _text(cell: Any) -> str:
    return (
        f"{cell:.3f}"
        if isinstance(cell, float) and abs(cell) < 10
        else f"{cell:.1f}"
        if isinstance(cell, float)
        else str(cell)
    )


def _is_number(cell: Any) -> bool:
    return isinstance(cell, int | float)
