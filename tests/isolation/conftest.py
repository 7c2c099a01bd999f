"""The fixtures of tests/app: a whole Sluice on fakes for each test."""

from __future__ import annotations

from tests.app.conftest import _logs, app_fixture

__all__ = ["_logs", "app_fixture"]
