"""Messages about a deployment; pure functions from documents of the API to lines of text."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from app.cli.client.events import Event
from app.cli.errors import NOT_SUCCEEDED, SUCCEEDED, SUPERSEDED

Document = dict[str, Any]
TERMINAL = frozenset({"succeeded", "failed", "rolled_back", "aborted", "rollback_failed", "superseded"})
GONE = ("stopped", "failed")
"""Statuses of an instance in which nothing runs any more."""
TAIL_LINES = 20
_COUNTED = frozenset({"created", "pending", "progressing", "progress", "instance_creating"})
"""Events whose content is already in the request's answer or in the instances' own events."""
_ENDINGS = {
    "rolled_back": "failed and was rolled back",
    "failed": "failed",
    "rollback_failed": "failed, and the rollback failed too",
    "aborted": "was aborted",
}


@dataclass(frozen=True)
class FinalMessage:
    """How a deployment ended: a sentence, advice, and an exit code of the table in docs/api.md."""

    sentence: str
    advice: str
    exit_code: int


def is_over(deployment: Document) -> bool:
    """Return whether nothing more happens by itself: it has ended, or its failure_action paused it."""
    return deployment["status"] in TERMINAL or paused_by_failure(deployment)


def paused_by_failure(deployment: Document) -> bool:
    """Return whether failure_action paused the deployment; a user's pause is not its end."""
    return deployment["status"] == "paused" and deployment.get("reason") not in (None, "user")


def format_event(event: Event, deployment: Document) -> str | None:
    """Return the line for `event`, None if it needs none.

    `deployment` is the current state, which has the in-flight counts. Further lines of a message are indented: they are
    the engine's or an instance's, and must not look like another event.
    """
    if event.type in TERMINAL or event.type in _COUNTED:
        return None
    when, words = _elapsed(deployment.get("created_at"), event.at), event.message.replace("\n", "\n         ")
    if event.instance is None:
        kind = event.type.replace("_", " ")
        return (
            f"{when}  {kind}: {words}" if event.type in ("warning", "paused", "rolling_back") else f"{when}  {words or kind}"
        )
    status = event.type.removeprefix("instance_")
    words = words.removeprefix(event.instance).lstrip(": ") or status
    if status == "failed" and words != status:
        words = f"failed: {words}"
    if status == "draining":
        words += "".join(f", {in_flight(i)}" for i in deployment.get("instances") or [] if i["id"] == event.instance)
    return f"{when}  {event.instance}  {words}"


def log_tails(deployment: Document, told: set[str]) -> list[str]:
    """Return the log tails of failed instances that are not in `told`, and add those instances to `told`."""
    lines = []
    for instance in deployment.get("instances") or []:
        tail = (instance.get("log_tail") or "").strip()
        if instance["status"] == "failed" and tail and instance["id"] not in told:
            told.add(instance["id"])
            lines += [f"         {instance['id']}  end of its log:"]
            lines += [f"         | {line}" for line in tail.split("\n")[-TAIL_LINES:]]
    return lines


def heartbeat(deployment: Document) -> str:
    """Return a status line for a log in which nothing else has happened for a while."""
    draining = [
        f"{instance['id']} drains, {in_flight(instance)}"
        for instance in deployment.get("instances") or []
        if instance["status"] == "draining"
    ]
    return "; ".join([f"still {deployment['status'].replace('_', ' ')}: {deployment.get('message') or ''}", *draining])


def in_flight(instance: Document) -> str:
    """Format the in-flight count, such as `2 requests in flight`."""
    count = instance.get("in_flight") or 0
    return f"{count} request{'' if count == 1 else 's'} in flight"


def end_of(deployment: Document, url: str | None = None) -> FinalMessage:
    """Return the final message. `url`: the service's URL, if it has one."""
    number, service, status = deployment["id"], deployment["service"], deployment["status"]
    message = (deployment.get("message") or "").rstrip(".")
    reason = f" ({deployment['reason']})" if deployment.get("reason") else ""
    if status == "succeeded":
        return FinalMessage(_success(deployment) + (f", {url}" if url else ""), "", SUCCEEDED)
    if status == "superseded":
        newer = deployment.get("superseded_by")
        sentence = f"{service}: deployment {number} was superseded" + (
            f" by deployment {newer}." if newer else " by a newer one."
        )
        return FinalMessage(sentence, f"Follow the newer one: `sluice status {newer or service} --follow`.", SUPERSEDED)
    if status == "paused":
        sentence = f"{service}: deployment {number} is paused{reason}: {message}."
        return FinalMessage(
            sentence, f"Continue with `sluice resume {number}`, or roll back with `sluice abort {number}`.", NOT_SUCCEEDED
        )
    how = _ENDINGS.get(status, f"is {status}")
    return FinalMessage(
        f"{service}: deployment {number} {how}{reason}: {message}.", _after_failure(deployment), NOT_SUCCEEDED
    )


def took(deployment: Document) -> str:
    """Format the time from acceptance to end; empty while the deployment runs."""
    begun, ended = _time(deployment.get("created_at")), _time(deployment.get("finished_at"))
    if begun is None or ended is None:
        return ""
    seconds = (ended - begun).total_seconds()
    return f"{seconds:.1f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def ago(at: str | None, now: datetime | None = None) -> str:
    """Format the time since `at` in one unit."""
    begun = _time(at)
    if begun is None:
        return ""
    seconds = max(0.0, ((now or datetime.now(UTC)) - begun).total_seconds())
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f}{unit}"
    return f"{seconds:.0f}s"


def _success(deployment: Document) -> str:
    service, revision, kind = deployment["service"], deployment.get("revision"), deployment["kind"]
    if deployment.get("reason") == "unchanged":
        return f"{service}: nothing to change; revision {revision} stays."
    counts, time = deployment.get("progress") or {}, took(deployment)
    after = f", {time}" if time else ""
    if kind == "remove":
        return f"{service} removed{after}; `sluice history {service}` still shows its deployments."
    serving = f"{counts.get('serving')}/{counts.get('desired', counts.get('serving'))} serving{after}"
    if kind in ("scale", "restart"):
        return f"{service} {'scaled' if kind == 'scale' else 'restarted'}: {serving}"
    image = f" ({deployment['image']})" if deployment.get("image") else ""
    verb = "rolled back" if kind == "rollback" else "deployed"
    return f"{service} {verb}: revision {revision}{image}, {serving}"


def _after_failure(deployment: Document) -> str:
    number = deployment["id"]
    if deployment["status"] == "aborted":
        return f"Retry it with `sluice retry {number}`."
    look = f"`sluice status {number}` shows each instance and the end of its log"
    return f"{look}; fix it and deploy again, or `sluice retry {number}`."


def _elapsed(begun: str | None, at: str | None) -> str:
    first, then = _time(begun), _time(at)
    return f"{max(0.0, (then - first).total_seconds()):5.1f} s" if first and then else "       "


def _time(text: str | None) -> datetime | None:
    try:
        return datetime.fromisoformat(text) if text else None
    except ValueError:
        return None
