"""A shell in which `make` is run, for a Sluice of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.shell import Shell


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    shell = Shell(tmp_path / "data", more={"SLUICE_KEEP_IMAGES": "1", "SLUICE_DEFAULT_ROUTE": "/{name}"})
    yield shell
    shell.clean()
