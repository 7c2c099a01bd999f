"""A build's log while it is written: numbered lines, of which the last are kept."""

from __future__ import annotations

from collections import deque
from itertools import islice

from services.printable import clean
from services.store.events import ChangeNotifier

MOST_LOG = 1024 * 1024
"""Bytes that are kept of a build's log."""
LONGEST_LINE = 16 * 1024
"""Characters of a line that are kept."""


class LogBuffer:
    """`news` wakes whoever reads when there is more, and when the build has ended."""

    def __init__(self) -> None:
        self.first = 1
        self.news = ChangeNotifier()
        self._lines: deque[str] = deque()
        self._size = 0

    def write(self, line: str) -> None:
        """Add a line, as it may be printed on a terminal; the oldest ones go when it is too much."""
        self._lines.append(clean(line.rstrip("\r")[:LONGEST_LINE].replace("\r", " ").replace("\n", " ")))
        self._size += _size(self._lines[-1])
        while self._size > MOST_LOG:
            self._size -= _size(self._lines.popleft())
            self.first += 1
        self.news.notify()

    def after(self, number: int) -> list[tuple[int, str]]:
        """The lines with higher numbers that are there."""
        return numbered(self._lines, self.first, number)

    def __str__(self) -> str:
        return "".join(f"{line}\n" for line in self._lines)


def numbered(lines: deque[str] | list[str], first: int, after: int) -> list[tuple[int, str]]:
    """(number, line) of those whose number is higher than `after`; the first line of all has the number `first`."""
    skipped = max(0, after + 1 - first)
    return list(enumerate(islice(lines, skipped, None), first + skipped))


def _size(line: str) -> int:
    return len(line.encode(errors="replace")) + 1
