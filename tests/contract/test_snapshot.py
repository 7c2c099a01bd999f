"""The public contract changes only together with the committed files in tests/contract/snapshot/."""

from __future__ import annotations

from difflib import unified_diff

import pytest

from tests.contract.surface import DIRECTORY, PARTS, text_of


@pytest.mark.parametrize("part", PARTS)
def test_the_contract_is_as_its_snapshot_says(part: str) -> None:
    committed = (DIRECTORY / part).read_text()
    difference = "\n".join(unified_diff(committed.splitlines(), text_of(part).splitlines(), "committed", "now", lineterm=""))
    assert not difference, f"{part} changed; if that is wanted, run `make snapshot`, read the diff, commit it:\n{difference}"


def test_every_snapshot_file_belongs_to_a_part() -> None:
    assert {path.name for path in DIRECTORY.iterdir()} == set(PARTS)
