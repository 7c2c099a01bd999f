"""Display of a deployment in progress: scrolling lines, or on a terminal a live line per instance."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self

from app.cli.client.events import Event
from app.cli.output.console import Output
from app.cli.output.messages import GONE, Document, format_event, heartbeat, in_flight, log_tails
from services.printable import strip_control_characters

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
    "unhealthy": "red",
    "failed": "red",
    "stopped": "dim",
}


class Display(Protocol):
    """Display of one deployment. `update` takes the events since the last call, which may be none."""

    def __enter__(self) -> Self: ...
    def __exit__(self, *exception: Any) -> None: ...
    def update(self, deployment: Document, events: Sequence[Event]) -> None: ...
    def show_unavailable(self, why: str | None) -> None: ...


def display_for(out: Output) -> Display:
    """Return the display that suits stderr."""
    return LiveDisplay(out) if out.is_live else PlainDisplay(out)


class PlainDisplay:
    """Display of one line per event; a status line after 15 s without any."""

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

    def show_unavailable(self, why: str | None) -> None:
        self._out.say(_away(why))


class LiveDisplay:
    """Display of a header and a line per instance, redrawn in place; important messages scroll above."""

    def __init__(self, out: Output) -> None:
        self._out = out
        self._live: Live | None = None
        self._begun = time.monotonic()
        self._deployment: Document | None = None
        self._seen: dict[str, Document] = {}
        self._told: set[str] = set()

    def __enter__(self) -> Self:
        # used only with a terminal, and takes a tenth of a second to load
        from rich.console import Console
        from rich.live import Live

        self._live = Live(console=Console(stderr=True), get_renderable=self._drawn, refresh_per_second=8, transient=False)
        self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._live is not None:
            self._live.stop()

    def update(self, deployment: Document, events: Sequence[Event]) -> None:
        # the document of an ended deployment omits instances that existed both before and after it
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

    def show_unavailable(self, why: str | None) -> None:
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
    """Sort instances: newer revisions first, then those that run before those that ended, then by slot."""
    return sorted(instances, key=lambda i: (-(i.get("revision") or 0), i["status"] in GONE, i.get("slot") or 0, i["id"]))


def _left(instance: Document) -> Document:
    """Return the final state of an instance that is no longer listed.

    One that was draining or stopping has stopped; any other keeps serving.
    """
    leaving = instance["status"] in ("draining", "stopping")
    return {**instance, "status": "stopped"} if leaving else instance


def _instance(instance: Document) -> RenderableType:
    status = instance["status"]
    mark = {"serving": "●", "ready": "◐", "unhealthy": "✗", "failed": "✗", "stopped": "○"}.get(status, "◌")
    probe = instance.get("last_probe") or {}
    detail = ""
    if status in ("serving", "draining"):
        detail = in_flight(instance)
    elif status == "unhealthy":
        detail = str(instance.get("unhealthy_reason") or "")
    elif status == "failed" and instance.get("exit_code") is not None:
        detail = f"exit code {instance['exit_code']}"
    elif status == "starting" and probe and not probe.get("ok"):
        detail = str(probe.get("error") or f"answered {probe.get('status')}")
    line = _text(f"  {mark} {instance['id']:<24} {status:<10} {detail}", _STYLES.get(status, ""))
    line.no_wrap = True
    return line


def _text(text: str, style: str = "") -> Text:
    """Return cleaned text: Rich does not remove escape sequences."""
    from rich.text import Text

    return Text(strip_control_characters(text), style=style)


def _away(why: str | None) -> str:
    if why is None:
        return "Sluice answers again."
    return f"Sluice does not answer ({why}); the deployment continues when it is back. Retrying …"
