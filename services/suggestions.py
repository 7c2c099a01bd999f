"""Suggestion of the known name nearest to a mistyped one. The search is slow, so its input is bounded."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from itertools import islice

MAX_SUGGESTIONS = 10
"""Maximum unknown names of one request that get a suggestion."""
_MAX_KNOWN = 200
_MAX_LENGTH = 100


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return the end of a sentence about an unknown name, empty if no known name is near."""
    searched = list(islice(known, _MAX_KNOWN))
    near = get_close_matches(name[:_MAX_LENGTH], searched, n=1, cutoff=0.6) if searched else []
    return f'; did you mean "{near[0]}"?' if near else ""
