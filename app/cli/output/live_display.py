"""A deployment while it happens: lines that scroll, or on a terminal a line an instance that changes in place."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self

from app.cli.client.events import Event
from app.cli.output.console import Output
from app.cli.output.messages import GONE, Document, format_event, heartbeat, in_flight, log_tails
from services.printable import clean

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.live import Live
    from rich.text import Text

QUIET_FOR = 15.0
_NOT_TO_BE_MISSED = ("instance_failed", "warning", "paused", "rolling_back")
_STYLES = {
    "serving": "green",
    "ready": "cyan",
    "draining": "yellow",
    "stopping": "yellow",
    "failed": "red",
    "stopped": "dim",
}


class Display(Protocol):
    """Shows one deployment. `update` takes what has come since, which may be nothing."""

    def __enter__(self) -> Self: ...
    def __exit__(self, *exception: Any) -> None: ...
    def update(self, deployment: Document, events: Sequence[Event]) -> None: ...
    def away(self, why: str | None) -> None: ...


def display_for(out: Output) -> Display:
    """What suits the place that narration goes to."""
    return LiveDisplay(out) if out.lively else PlainDisplay(out)


class PlainDisplay:
    """A line for whatever happens; a sign of life every 15 s otherwise."""

    def __init__(self, out: Output) -> None:
        self._out = out
        self._spoke = time.monotonic()
        self._told: set[str] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def update(self, deployment: Document, events: Sequence[Event]) -> None:
        lines = [line for event in events if (line := format_event(event, deployment))] + log_tails(deployment, self._told)
        if not lines and time.monotonic() - self._spoke > QUIET_FOR:
            lines = [heartbeat(deployment)]
        for line in lines:
            self._out.say(line)
            self._spoke = time.monotonic()

    def away(self, why: str | None) -> None:
        self._out.say(_away(why))


class LiveDisplay:
    """A header and a line an instance, redrawn in place; what must not be missed scrolls above."""

    def __init__(self, out: Output) -> None:
        self._out = out
        self._live: Live | None = None
        self._begun = time.monotonic()
        self._deployment: Document | None = None
        self._seen: dict[str, Document] = {}
        self._told: set[str] = set()

    def __enter__(self) -> Self:
        # a terminal alone needs them, and they take a tenth of a second to load
        from rich.console import Console
        from rich.live import Live

        self._live = Live(console=Console(stderr=True), get_renderable=self._drawn, refresh_per_second=8, transient=False)
        self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._live is not None:
            self._live.stop()

    def update(self, deployment: Document, events: Sequence[Event]) -> None:
        # the API's page of a deployment that has ended leaves out those that were there before and after it
        here = {instance["id"]: instance for instance in deployment.get("instances") or []}
        left = {name: _left(instance) for name, instance in self._seen.items() if name not in here}
        self._seen = {**here, **left}
        self._deployment = deployment
        for event in events:
            line = format_event(event, deployment) if event.type in _NOT_TO_BE_MISSED else None
            if line:
                self._out.say(line, "red" if event.type == "instance_failed" else "yellow")
        for line in log_tails(deployment, self._told):
            self._out.say(line)

    def away(self, why: str | None) -> None:
        self._out.say(_away(why), "yellow")

    def _drawn(self) -> RenderableType:
        from rich.console import Group

        deployment = self._deployment
        if deployment is None:
            return _text("")
        status = deployment["status"].replace("_", " ")
        seconds = time.monotonic() - self._begun
        head = f"{deployment['service']}  deployment {deployment['id']}  {status}  {seconds:.1f} s"
        message = deployment.get("message") or ""
        return Group(_text(head, "bold"), _text(message, "dim"), *map(_instance, ordered(self._seen.values())))


def ordered(instances: Iterable[Document]) -> list[Document]:
    """New ones first, then the old ones; within a revision by slot, those that have gone at its end."""
    return sorted(instances, key=lambda i: (-(i.get("revision") or 0), i["status"] in GONE, i.get("slot") or 0, i["id"]))


def _left(instance: Document) -> Document:
    """What became of one that is no longer shown: on its way out, it has gone; else it serves on."""
    leaving = instance["status"] in ("draining", "stopping")
    return {**instance, "status": "stopped"} if leaving else instance


def _instance(instance: Document) -> RenderableType:
    status = instance["status"]
    mark = {"serving": "●", "ready": "◐", "failed": "✗", "stopped": "○"}.get(status, "◌")
    probe = instance.get("last_probe") or {}
    detail = ""
    if status in ("serving", "draining"):
        detail = in_flight(instance)
    elif status == "failed" and instance.get("exit_code") is not None:
        detail = f"exit code {instance['exit_code']}"
    elif status == "starting" and probe and not probe.get("ok"):
        detail = str(probe.get("error") or f"answered {probe.get('status')}")
    line = _text(f"  {mark} {instance['id']:<24} {status:<10} {detail}", _STYLES.get(status, ""))
    line.no_wrap = True
    return line


def _text(text: str, style: str = "") -> Text:
    """Cleaned, since Rich lets escape sequences through."""
    from rich.text import Text

    return Text(clean(text), style=style)


def _away(why: str | None) -> str:
    if why is None:
        return "Sluice answers again."
    return f"Sluice does not answer ({why}); the deployment goes on when it is back. Trying again …"
