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
        self._disagrees_since: dict[str, float] = {}
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
        """Record a violation if the status contradicts the answers for AGREES_WITHIN seconds.

        `reachable`: seconds since the API answers again.
        """
        self.checks += 1
        answers = self._answers[name]
        silent = answers.silent_for(now)
        self._note_down(answers, status, now, silent)
        hidden = silent >= DETECTION_SECONDS and status != "down"
        invented = status == "down" and silent < PERIOD * 2 and answers.answered_each_second(now, AGREES_WITHIN)
        if not (hidden or invented):
            self._disagrees_since.pop(name, None)
            return
        since = self._disagrees_since.setdefault(name, now)
        if min(now - since, reachable) >= AGREES_WITHIN:
            self._disagrees_since[name] = now  # one violation for each period
            last = f"its last answer is {silent:.1f} s old"
            self._violations.append(f"{name} has been shown as {status} for {AGREES_WITHIN:g} s, but {last}")

    def _note_down(self, answers: Answers, status: str, now: float, silent: float) -> None:
        if status == "down" and answers.silent_since is None:
            answers.silent_since = now - silent
            self.shown_after.append(silent)
        elif status != "down":
            answers.silent_since = None
