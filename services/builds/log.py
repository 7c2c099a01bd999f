"""Log of a running build: numbered lines, of which the last ones are kept."""

from __future__ import annotations

from collections import deque
from itertools import islice

from services.printable import strip_control_characters
from services.store.events import ChangeNotifier

MAX_LOG_BYTES = 1024 * 1024
"""Maximum bytes of a build's log; older lines are dropped."""
MAX_LINE_CHARS = 16 * 1024
"""Maximum characters of a line; the rest is cut off."""


class LogBuffer:
    """Buffer of a build's log. `lines_changed` notifies readers of new lines and of the build's end."""

    def __init__(self) -> None:
        self.first = 1
        self.lines_changed = ChangeNotifier()
        self._lines: deque[str] = deque()
        self._size = 0

    def write(self, line: str) -> None:
        """Add a line, cleaned for a terminal. The oldest lines are dropped if the log exceeds its maximum."""
        self._lines.append(
            strip_control_characters(line.rstrip("\r")[:MAX_LINE_CHARS].replace("\r", " ").replace("\n", " "))
        )
        self._size += _size(self._lines[-1])
        while self._size > MAX_LOG_BYTES:
            self._size -= _size(self._lines.popleft())
            self.first += 1
        self.lines_changed.notify()

    def after(self, number: int) -> list[tuple[int, str]]:
        """Return the kept lines with a higher number, each with its number."""
        return numbered(self._lines, self.first, number)

    def __str__(self) -> str:
        return "".join(f"{line}\n" for line in self._lines)


def numbered(lines: deque[str] | list[str], first: int, after: int) -> list[tuple[int, str]]:
    """Return the lines with a number higher than `after`, as (number, line).

    `first`: number of the first line.
    """
    skipped = max(0, after + 1 - first)
    return list(enumerate(islice(lines, skipped, None), first + skipped))


def _size(line: str) -> int:
    return len(line.encode(errors="replace")) + 1
