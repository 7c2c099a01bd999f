"""Memory and open files of Sluice and of its gateway, sampled over time, and their growth."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.docker_cli import EngineFault, docker

EVERY = 10.0
"""Seconds between two samples."""
WARM = 60.0
"""Seconds of a process's life that are ignored, because its caches are still filling."""


@dataclass(frozen=True)
class Sample:
    """One sample. `at` by the monotonic clock, memory (resident) in bytes."""

    at: float
    memory: int
    files: int


@dataclass
class ResourceUsage:
    """Samples by process: a new process is a new row."""

    pids: Callable[[], dict[str, int | None]]
    """Function that returns the present main processes by name; their children count with them."""
    samples: dict[tuple[str, int], list[Sample]] = field(default_factory=dict)

    async def watch(self) -> None:
        """Take samples until cancelled."""
        while True:
            for name, pid in (await asyncio.to_thread(self.pids)).items():
                if pid and (sample := _sample(pid)) is not None:
                    self.samples.setdefault((name, pid), []).append(sample)
            await asyncio.sleep(EVERY)

    def report(self) -> list[dict[str, object]]:
        """Return for each name the longest-lived process: its first and last sample, and the slopes per hour."""
        rows: list[dict[str, object]] = []
        for name in sorted({name for name, _ in self.samples}):
            lives = [samples for (whose, _), samples in self.samples.items() if whose == name]
            longest = max(lives, key=lambda samples: samples[-1].at - samples[0].at)
            retained = [sample for sample in longest if sample.at > longest[0].at + WARM] or longest
            hours = [(sample.at - retained[0].at) / 3600 for sample in retained]
            rows.append(
                {
                    "process": name,
                    "processes": len(lives),
                    "minutes": round(hours[-1] * 60, 1),
                    "memory_mb": [round(retained[0].memory / 1e6, 1), round(retained[-1].memory / 1e6, 1)],
                    "memory_mb_per_hour": round(slope(hours, [sample.memory / 1e6 for sample in retained]), 2),
                    "files": [retained[0].files, retained[-1].files],
                    "most_files": max(sample.files for sample in retained),
                    "files_per_hour": round(slope(hours, [float(sample.files) for sample in retained]), 2),
                }
            )
        return rows


def slope(xs: Sequence[float], ys: Sequence[float]) -> float:
    """Return the slope of the least-squares line; 0 for fewer than two points."""
    count = len(xs)
    middle, height = sum(xs) / max(count, 1), sum(ys) / max(count, 1)
    spread = sum((x - middle) ** 2 for x in xs)
    return sum((x - middle) * (y - height) for x, y in zip(xs, ys, strict=True)) / spread if spread else 0.0


def container_pid(name: str) -> int | None:
    """Return the id of a container's main process; None while it does not run."""
    with contextlib.suppress(EngineFault, ValueError):
        return int(docker("inspect", "--format", "{{.State.Pid}}", name)) or None
    return None


def lives(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def children(pid: int) -> list[int]:
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="utf-8").split()]
    except OSError:
        return []


def _sample(pid: int) -> Sample | None:
    """Sample a process and its children; None if it has gone."""
    memory = files = 0
    try:
        for each in (pid, *children(pid)):
            status = Path(f"/proc/{each}/status").read_text(encoding="utf-8")
            memory += next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmRSS:"))
            files += len(list(Path(f"/proc/{each}/fd").iterdir()))
    except (OSError, StopIteration):
        return None
    return Sample(time.monotonic(), memory, files)
