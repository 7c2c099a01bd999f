"""How an instance is stopped: its signal, and the time until it is killed."""

from __future__ import annotations

from dataclasses import dataclass

from services.rollouts.state.revision_spec import revision_spec
from services.store.tables import Instance, Revision

UNSERVED_STOP_GRACE = 10.0
"""The maximum grace period in seconds of an instance to which no request ever went.

The value is the default of `docker stop`. A process that handles no signals yet would otherwise delay a rollback by the
whole `stop_grace_period`. The limit does not apply to workers (instances without a port), which may be at work.
"""


@dataclass(frozen=True)
class StopLimit:
    """Signal, seconds until SIGKILL, the setting of both, and advice for an instance that was killed."""

    signal: str
    grace: float
    source: str
    advice: str


def stop_limit(row: Instance, revision: Revision) -> StopLimit:
    """Return how the instance is stopped. An image may replace SIGTERM by a STOPSIGNAL of its own."""
    spec = revision_spec(revision)
    signal = spec.stop_signal or "SIGTERM"
    if row.port is not None and row.admitted_at is None and spec.stop_grace_period > UNSERVED_STOP_GRACE:
        return StopLimit(signal, UNSERVED_STOP_GRACE, "the grace period of an instance that never served", "")
    advice = "" if spec.init else f"; process 1 ignores {signal} unless it handles it: handle it, or set init: true"
    return StopLimit(signal, spec.stop_grace_period, "stop_grace_period", advice)
