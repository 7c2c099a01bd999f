"""Readiness of Sluice's parts: each part reports why it is not ready, and clears its report."""

from __future__ import annotations


class Readiness:
    """The parts that are not ready (`engine`, `gateway`, `loop`, background tasks), with the reasons.

    A part is not ready if it does not answer, has crashed, or has yet to start.
    """

    def __init__(self) -> None:
        self._reasons: dict[str, str] = {}

    def report(self, part: str, why: str) -> None:
        """Mark a part as not ready; `why` replaces an earlier reason."""
        self._reasons[part] = why

    def clear(self, part: str) -> None:
        """Mark a part as ready."""
        self._reasons.pop(part, None)

    def not_ready(self) -> dict[str, str]:
        """Return a copy of part → reason; empty if all parts are ready."""
        return dict(self._reasons)
