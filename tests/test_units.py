"""Durations and sizes in the notations that users write."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from services.units import Duration, PositiveDuration, Size

durations, positive, sizes = TypeAdapter(Duration), TypeAdapter(PositiveDuration), TypeAdapter(Size)


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        (0, 0),
        (1.5, 1.5),
        ("90s", 90),
        ("1m30s", 90),
        ("1h", 3600),
        ("1h1m1s", 3661),
        ("250ms", 0.25),
        ("1.5s", 1.5),
        ("0s", 0),
        ("2s500ms", 2.5),
    ],
)
def test_duration_is_parsed_to_seconds(written: Any, seconds: float) -> None:
    assert durations.validate_python(written) == seconds


@pytest.mark.parametrize(
    "written", ["", "5", "s", "1s1m", "-1s", "1 s", "1S", "1d", "1s\n", "٣s", -1, True, None, [], "9" * 40 + "s", 1e300]
)
def test_invalid_duration_is_refused(written: Any) -> None:
    with pytest.raises(ValidationError):
        durations.validate_python(written)


@pytest.mark.parametrize("written", [0, "0s", "0ms", 0.0])
def test_positive_duration_refuses_zero(written: Any) -> None:
    with pytest.raises(ValidationError):
        positive.validate_python(written)


@pytest.mark.parametrize(
    ("written", "count"),
    [
        (1, 1),
        ("1", 1),
        ("256m", 256 * 1024**2),
        ("1g", 1024**3),
        ("1.5gb", 3 * 1024**3 // 2),
        ("10 MB", 10 * 1024**2),
        ("2K", 2048),
    ],
)
def test_size_is_parsed_to_bytes(written: Any, count: int) -> None:
    assert sizes.validate_python(written) == count


@pytest.mark.parametrize(
    "written", ["", "m", "1x", "-1m", "0", 0, -5, True, 1.5, None, "1mib", "1m\n", "٣m", 2**60, "9" * 31 + "t"]
)
def test_invalid_size_is_refused(written: Any) -> None:
    with pytest.raises(ValidationError):
        sizes.validate_python(written)


@given(st.text() | st.integers() | st.floats() | st.none())
def test_any_other_value_is_refused_without_other_errors(written: Any) -> None:
    for adapter in (durations, positive, sizes):
        with suppress(ValidationError):
            assert adapter.validate_python(written) >= 0
