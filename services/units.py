"""Parsing of durations and sizes in Compose's notation."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

_DURATION = re.compile(
    r"(?:(?P<h>[0-9]+(?:\.[0-9]+)?)h)?(?:(?P<m>[0-9]+(?:\.[0-9]+)?)m)?(?:(?P<s>[0-9]+(?:\.[0-9]+)?)s)?(?:(?P<ms>[0-9]+)ms)?"
)
_SIZE = re.compile(r"(?P<n>[0-9]+(?:\.[0-9]+)?)\s*(?P<unit>[kmgt]?)b?", re.IGNORECASE)
_FACTOR = {"": 1, "k": 1024, "m": 1024**2, "g": 1024**3, "t": 1024**4}
MAX_SECONDS = 7 * 24 * 3600.0


def parse_duration(value: Any) -> float:
    """Return a duration in seconds from a number of seconds, `"1m30s"` or `"250ms"`. Raises ValueError."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError('must be a number of seconds or a duration such as "1m30s"')
    if isinstance(value, str):
        match = _DURATION.fullmatch(value) if 0 < len(value) <= 32 else None
        if not match:
            raise ValueError('must be a number of seconds or a duration such as "1m30s"')
        hours, minutes, seconds, millis = (float(match[g] or 0) for g in ("h", "m", "s", "ms"))
        value = hours * 3600 + minutes * 60 + seconds + millis / 1000
    return float(value)


def parse_size(value: Any) -> int:
    """Return a size in bytes from a number of bytes, `"256m"` or `"1.5gb"`. Raises ValueError."""
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError('must be a number of bytes or a size such as "256m"')
    if isinstance(value, int):
        return value
    match = _SIZE.fullmatch(value) if len(value) <= 32 else None
    if not match:
        raise ValueError('must be a number of bytes or a size such as "256m"')
    return int(float(match["n"]) * _FACTOR[match["unit"].lower()])


Duration = Annotated[float, BeforeValidator(parse_duration), Field(ge=0, le=MAX_SECONDS, allow_inf_nan=False)]
PositiveDuration = Annotated[float, BeforeValidator(parse_duration), Field(gt=0, le=MAX_SECONDS, allow_inf_nan=False)]
Size = Annotated[int, BeforeValidator(parse_size), Field(gt=0, le=2**50)]
