"""A whole Sluice on fakes for each test, as tests/app has it."""

from __future__ import annotations

from tests.app.conftest import _logs, fixture

__all__ = ["_logs", "fixture"]
