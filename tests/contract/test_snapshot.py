"""The public contract changes only together with the committed files in tests/contract/snapshot/."""

from __future__ import annotations

from difflib import unified_diff

import pytest

from tests.contract.public_contract import DIRECTORY, PARTS, text_of


@pytest.mark.parametrize("part", PARTS)
def test_contract_matches_its_snapshot(part: str) -> None:
    committed = (DIRECTORY / part).read_text()
    difference = "\n".join(unified_diff(committed.splitlines(), text_of(part).splitlines(), "committed", "now", lineterm=""))
    assert not difference, f"{part} changed; if that is wanted, run `make snapshot`, read the diff, commit it:\n{difference}"


def test_snapshot_files_match_the_parts() -> None:
    assert {path.name for path in DIRECTORY.iterdir()} == set(PARTS)
