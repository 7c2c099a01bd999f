"""Readiness probes of instances that do not serve yet.

The first probes are 50 ms apart. The delay grows up to the health check's `interval`. One success makes an instance ready.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import httpx
from anyio import to_thread

from services.backoff import Backoff
from services.bounded_http import AnswerRefusedError, BoundedClient
from services.clock import Clock
from services.masking import Mask, log_mask
from services.spec import HEALTHCHECK_USER_AGENT, Healthcheck

FIRST_INTERVAL = 0.05
GROWTH = 1.15
MAX_BODY = 64 * 1024
MAX_ERROR = 300
"""Maximum length of a probe's error in characters, because the error may quote the instance's answer."""


@dataclass(frozen=True)
class ProbeResult:
    """The result of one probe.

    `at` is in seconds since the epoch, `status` is the HTTP status, and `error` is a short sentence.
    """

    ok: bool
    at: float
    status: int | None = None
    error: str | None = None


@dataclass(frozen=True)
class ProbeTarget:
    """An instance to probe.

    `start_id` names one start of the instance's container, so that a result never counts for another start. The secrets of
    `spec` are masked in the errors of the results.
    """

    instance: str
    start_id: str
    address: str
    port: int
    check: Healthcheck
    spec: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)


@dataclass(frozen=True)
class ProbeSnapshot:
    """The results of the probes of some instances at one moment."""

    ready_at: Mapping[tuple[str, str], float] = field(default_factory=dict)
    """Instance and start → since when this start has been ready; starts that are not ready are left out."""
    errors: Mapping[str, str] = field(default_factory=dict)
    """Instance → the error of its last probe; instances without an error are left out."""


class Prober:
    """A prober that runs one task for each instance whose readiness must be established."""

    def __init__(self, clock: Clock, changed: Callable[[str], None]) -> None:
        """Create a prober without targets.

        `changed` is called with an instance's id if the instance's readiness or probe error changed.
        """
        self._clock = clock
        self._changed = changed
        self._tasks: dict[str, tuple[ProbeTarget, asyncio.Task[None]]] = {}
        self._leaving: set[asyncio.Task[None]] = set()
        """Cancelled tasks that have yet to close their connections."""
        self._ready: dict[tuple[str, str], float] = {}
        self._last: dict[str, ProbeResult] = {}
        self._masks: dict[str, Mask] = {}
        """Instance id → the mask of the instance's spec, made at the first error of a probe."""
        self._client = BoundedClient(MAX_BODY, user_agent=HEALTHCHECK_USER_AGENT)

    def last(self, instance: str) -> ProbeResult | None:
        return self._last.get(instance)

    def last_errors(self, instances: Iterable[str]) -> dict[str, str]:
        """Return instance id → error of the last probe; instances without an error are left out."""
        return {id: last.error for id in instances if (last := self._last.get(id)) is not None and last.error}

    def snapshot(self, starts: Iterable[tuple[str, str]]) -> ProbeSnapshot:
        """Return the results for these starts, each an instance and a start id."""
        asked = list(starts)
        ready = {start: self._ready[start] for start in asked if start in self._ready}
        return ProbeSnapshot(ready, self.last_errors(instance for instance, _ in asked))

    async def ask_all(self, targets: Iterable[ProbeTarget]) -> set[str]:
        """Probe each target once, concurrently, and return the ids of the healthy instances.

        The starts of the healthy instances count as ready from now on.
        """
        asked = list(targets)
        results = await asyncio.gather(*(self._ask(target) for target in asked))
        for target, result in zip(asked, results, strict=True):
            self._last[target.instance] = result
            if result.ok:
                self._ready[(target.instance, target.start_id)] = self._clock.now()
        return {target.instance for target, result in zip(asked, results, strict=True) if result.ok}

    def set_targets(self, service_instances: Iterable[str], targets: Iterable[ProbeTarget]) -> None:
        """Probe exactly `targets` of one service's instances from now on.

        Probes of the other instances in `service_instances` are stopped.
        """
        wanted = {target.instance: target for target in targets}
        for instance in service_instances:
            running = self._tasks.get(instance)
            if running and running[0] != wanted.get(instance):
                self._end(running[1])
                del self._tasks[instance]
        for instance, target in wanted.items():
            if instance not in self._tasks:
                self._tasks[instance] = (target, asyncio.create_task(self._probe_repeatedly(target)))

    def remove(self, instance: str) -> None:
        self.set_targets([instance], [])
        self._last.pop(instance, None)
        self._masks.pop(instance, None)
        for key in [key for key in self._ready if key[0] == instance]:
            del self._ready[key]

    async def stop(self) -> None:
        """Stop all probes until `set_targets` is called again, and return when every connection is closed."""
        for _, task in self._tasks.values():
            self._end(task)
        self._tasks.clear()
        await asyncio.gather(*self._leaving, return_exceptions=True)
        await self._client.close()

    def _end(self, task: asyncio.Task[None]) -> None:
        task.cancel()
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)

    async def _probe_repeatedly(self, target: ProbeTarget) -> None:
        key = (target.instance, target.start_id)
        intervals, failures = Backoff(FIRST_INTERVAL, target.check.interval, GROWTH), 0
        while True:
            result = await self._ask(target)
            before = self._last.get(target.instance)
            self._last[target.instance] = result
            failures = 0 if result.ok else failures + 1
            was_ready = key in self._ready
            if result.ok and not was_ready:
                self._ready[key] = self._clock.now()
            elif was_ready and failures >= target.check.retries:
                del self._ready[key]
            if was_ready != (key in self._ready) or before is None or before.error != result.error:
                self._changed(target.instance)
            await asyncio.sleep(intervals.next())

    async def _ask(self, target: ProbeTarget) -> ProbeResult:
        result = await self._answer_of(target)
        if not result.error:
            return result
        if (mask := self._masks.get(target.instance)) is None:
            mask = self._masks[target.instance] = await to_thread.run_sync(log_mask, target.spec)
        return replace(result, error=mask.text(result.error)[:MAX_ERROR])

    async def _answer_of(self, target: ProbeTarget) -> ProbeResult:
        try:
            async with asyncio.timeout(target.check.timeout):
                if target.check.tcp:
                    return await self._connect(target)
                return await self._get(target)
        except TimeoutError:
            return self._result(error=f"no answer within {target.check.timeout:g} s")
        except (ConnectionRefusedError, httpx.ConnectError):
            return self._result(error=f"no connection to port {target.check.port or target.port}")
        except (OSError, httpx.HTTPError, httpx.InvalidURL, AnswerRefusedError, ValueError, RecursionError) as error:
            return self._result(error=str(error) or type(error).__name__)

    async def _connect(self, target: ProbeTarget) -> ProbeResult:
        _, writer = await asyncio.open_connection(target.address, target.check.port or target.port)
        writer.close()
        with suppress(OSError):  # the connection was accepted, so an error while it closes does not matter
            await writer.wait_closed()
        return self._result(ok=True)

    async def _get(self, target: ProbeTarget) -> ProbeResult:
        check = target.check
        url = f"http://{target.address}:{check.port or target.port}{check.path or '/'}"
        answer = await self._client.ask("GET", url, check.headers, timeout=check.timeout, body=check.expect_json is not None)
        status = answer.status
        if check.expect_json is None:
            ok = status < 500 if check.any_below_500 else 200 <= status < 400
            return self._result(ok=ok, status=status, error=None if ok else f"answered {status}")
        wrong = _mismatch(answer.json(), check.expect_json)
        if not 200 <= status < 400:
            wrong = wrong or f"answered {status}"
        return self._result(ok=wrong is None, status=status, error=wrong)

    def _result(self, *, ok: bool = False, status: int | None = None, error: str | None = None) -> ProbeResult:
        return ProbeResult(ok, self._clock.now(), status, error)


def _mismatch(answer: Any, expected: dict[str, Any]) -> str | None:
    """Return a description of the first expected field that the answer does not match, or None.

    Fields that are not expected are ignored.
    """
    if not isinstance(answer, dict):
        return "response is not a JSON object"
    for name, value in expected.items():
        if answer.get(name) != value:
            return f"{name} is {answer.get(name)!r}, not {value!r}"
    return None
