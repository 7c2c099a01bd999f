"""For all tests: what is asynchronous runs on asyncio alone, and what a test interrupts hears it."""

from __future__ import annotations

import signal

import pytest

# A shell's background jobs are born deaf to SIGINT, and so would be every process that a test starts and interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"
