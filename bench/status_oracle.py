"""Oracle of the services' status: what the load generator's answers say, against what Sluice shows."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import httpx

from services.loadtest.request_log import RequestRecord

PERIOD = 0.5
"""Seconds between two comparisons."""
AGREES_WITHIN = 10.0
"""Seconds within which the status must agree with the answers."""
DETECTION_SECONDS = 11.0
"""Seconds until a check with the soak's settings, or the default ones, fails: retries × (interval + timeout) + 2 s."""


@dataclass
class Answers:
    """The moments (monotonic clock) at which a service answered with success."""

    times: deque[float] = field(default_factory=lambda: deque(maxlen=2000))
    silent_since: float | None = None

    def answered_each_second(self, now: float, seconds: float) -> bool:
        """Return whether at least one request succeeded in each of the last `seconds` seconds."""
        ages = {int(now - at) for at in self.times if now - at < seconds}
        return len(ages) == int(seconds)

    def silent_for(self, now: float) -> float:
        """Return the seconds since the last success."""
        return now - self.times[-1] if self.times else 0.0


class StatusOracle:
    """Comparison of each service's status with its answers.

    A service that has not answered for long must be shown as down, and a service that answers must not be.
    """

    def __init__(self, services: Sequence[str]) -> None:
        self._answers = {name: Answers() for name in services}
        self._reachable_since: float | None = None
        self._violations: list[str] = []
        self._reported: set[str] = set()
        self.checks = 0
        self.shown_after: list[float] = []
        """For each time that a service went down: seconds from the last answer until the status said so."""

    def add(self, service: str, entry: RequestRecord) -> None:
        if entry.status is not None and 200 <= entry.status < 300:
            self._answers[service].times.append(time.monotonic())

    def take_violations(self) -> list[str]:
        """Return the violations since the last call."""
        found, self._violations = self._violations, []
        return found

    async def watch(self, http: httpx.AsyncClient) -> None:
        """Compare until cancelled."""
        while True:
            await asyncio.sleep(PERIOD)
            try:
                answer = await http.get("/services", params={"limit": 100})
                answer.raise_for_status()
            except httpx.HTTPError:
                self._reachable_since = None  # Sluice is being killed or started
                continue
            now = time.monotonic()
            self._reachable_since = self._reachable_since or now
            for row in answer.json()["items"]:
                if row["name"] in self._answers:
                    self.compare(row["name"], row["status"], now, now - self._reachable_since)

    def compare(self, name: str, status: str, now: float, reachable: float) -> None:
        """Record a violation if the status contradicts the answers; `reachable`: seconds of API uptime."""
        self.checks += 1
        answers = self._answers[name]
        silent = answers.silent_for(now)
        if silent >= DETECTION_SECONDS + AGREES_WITHIN <= reachable and status != "down":
            self._violate(name, f"{name} is shown as {status}, but has not answered for {silent:.1f} s")
        elif status == "down" and reachable >= AGREES_WITHIN and answers.answered_each_second(now, AGREES_WITHIN):
            self._violate(name, f"{name} is shown as down, but has answered for {AGREES_WITHIN:g} s")
        else:
            self._reported.discard(name)
        if status == "down" and answers.silent_since is None:
            answers.silent_since = now - silent
            self.shown_after.append(silent)
        elif status != "down":
            answers.silent_since = None

    def _violate(self, name: str, text: str) -> None:
        if name not in self._reported:
            self._reported.add(name)
            self._violations.append(text)
