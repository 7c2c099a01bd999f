"""Growing delays between repeated attempts."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Backoff:
    """Delays in seconds: `first`, then `factor` times the delay before, never more than `longest`."""

    first: float
    longest: float
    factor: float = 2.0
    _attempts: int = field(default=0, init=False)

    @property
    def grown(self) -> bool:
        """Whether `next` was called since the last `reset`."""
        return self._attempts > 0

    def delay(self, attempts: int) -> float:
        """Return the delay after this many earlier delays."""
        try:
            return min(self.first * self.factor**attempts, self.longest)
        except OverflowError:
            return self.longest

    def next(self) -> float:
        """Return the next delay."""
        delay = self.delay(self._attempts)
        self._attempts += 1
        return delay

    def reset(self) -> None:
        """Begin with `first` again, because an attempt succeeded."""
        self._attempts = 0
