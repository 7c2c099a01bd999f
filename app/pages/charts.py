"""Traffic charts that pages show beside the numbers."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache


@lru_cache(4096)
def spark(values: Sequence[float]) -> str:
    """Return the SVG path of a line through `values`; "" if all are 0.

    The path lies in a box of (len - 1) × 20 with free space at the top.
    """
    top = max(values, default=0)
    if top <= 0:
        return ""
    return "M" + "L".join(f"{x} {19 - round(value / top * 17)}" for x, value in enumerate(values))
