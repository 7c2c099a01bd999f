"""For all tests: what is asynchronous runs on asyncio alone."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"
