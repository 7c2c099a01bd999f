"""Banned phrases become fewer and never more."""

from __future__ import annotations

import pytest

from tests.quality.phrases import AREAS, held, occurrences

MAX_IN_CODE = 20


@pytest.mark.parametrize("area", AREAS)
def test_banned_phrases_never_increase(area: str) -> None:
    found = occurrences(area)
    assert len(found) <= held()[area], "\n".join(["rephrase (CONTRIBUTING.md, Language):", *found])


@pytest.mark.parametrize("area", AREAS)
def test_held_count_of_banned_phrases_follows_their_decrease(area: str) -> None:
    assert held()[area] <= len(occurrences(area)), "run `.venv/bin/python -m tests.quality.phrases` and commit phrases.txt"


def test_code_has_few_banned_phrases() -> None:
    assert held()["code"] <= MAX_IN_CODE
