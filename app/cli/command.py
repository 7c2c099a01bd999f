"""Common parts of every command: --url, --token, --output, --quiet, client, output and exit code."""

from __future__ import annotations

import asyncio
import functools
import inspect
import signal
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, Any, Concatenate, ParamSpec

import typer

from app.cli.client.http import Client
from app.cli.client.server_address import find_server
from app.cli.errors import INTERRUPTED, CliError, usage
from app.cli.output.console import Format, Output
from app.cli.suggestions import suggest_service
from app.cli.waiting import Detach, Timeout, Wait, waiting_of

P = ParamSpec("P")

_GLOBAL = "Global options"
Url = Annotated[str | None, typer.Option("--url", envvar="SLUICE_URL", help="Address of Sluice.", rich_help_panel=_GLOBAL)]
Token = Annotated[str | None, typer.Option("--token", envvar="SLUICE_TOKEN", help="Access token.", rich_help_panel=_GLOBAL)]
Json = Annotated[bool, typer.Option("--json", help="Same as -o json.", rich_help_panel=_GLOBAL)]
OutputFormat = Annotated[
    Format | None,
    typer.Option(
        "--output",
        "-o",
        help="json or yaml only on stdout, wide (tables are not shortened), or name (same as -q).",
        rich_help_panel=_GLOBAL,
        show_default=False,
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print the bare result only.", rich_help_panel=_GLOBAL)]


_OUTPUT: dict[str, Any] = {"as_json": Json, "quiet": Quiet, "output": OutputFormat}
_WAITING: dict[str, Any] = {"detach": Detach, "wait": Wait, "timeout": Timeout}


@dataclass(frozen=True)
class CommandContext:
    """Context of a command: `client` for Sluice's API, `out` for its output."""

    client: Client
    out: Output


def command(work: Callable[Concatenate[CommandContext, P], Awaitable[int | None]]) -> Callable[..., None]:
    """Make a Typer command of `work`, whose first parameter is the CommandContext.

    `work` returns the exit code; None means 0.
    """

    async def run_with_client(out: Output, url: str | None, token: str | None, arguments: dict[str, Any]) -> int | None:
        task = asyncio.current_task()
        if task is not None and threading.current_thread() is threading.main_thread():
            # a cancelled CI job shall print the same final messages as Ctrl-C does
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        async with Client(find_server(url, token)) as client:
            try:
                return await work(CommandContext(client, out), **arguments)  # type: ignore[call-arg]
            except CliError as error:
                await suggest_service(client, error, arguments)
                raise

    def command(*, url: str | None, token: str | None, **options: Any) -> None:
        _run(options, lambda out, arguments: asyncio.run(run_with_client(out, url, token, arguments)))

    return _with_common_options(command, work, url=Url, token=Token, **_OUTPUT)


def local_command(work: Callable[Concatenate[Output, P], int | None]) -> Callable[..., None]:
    """Make a Typer command of `work` that runs on this machine without a connection to Sluice."""

    def command(**options: Any) -> None:
        _run(options, lambda out, arguments: work(out, **arguments))  # type: ignore[call-arg]

    return _with_common_options(command, work, **_OUTPUT)


def _run(options: dict[str, Any], work: Callable[[Output, dict[str, Any]], int | None]) -> None:
    """Call `work` with the output and the command's arguments; exit with its code, or print its error."""
    as_json, quiet, output = (options.pop(name) for name in _OUTPUT)
    out = Output(output or (Format.JSON if as_json else None), quiet=quiet)
    try:
        if as_json and output not in (None, Format.JSON):
            raise usage(f"--json and --output {output.value} exclude each other", "Use one of them.")
        if "detach" in options:
            waiting = {name: options.pop(name) for name in _WAITING}
            options["waiting"] = waiting_of(**waiting)
        code = work(out, options)
    except CliError as error:
        out.error(error)
        code = error.exit_code
    except (KeyboardInterrupt, asyncio.CancelledError):
        code = INTERRUPTED
    raise typer.Exit(code or 0)


def _with_common_options(command: Callable[..., None], work: Callable[..., Any], **common: Any) -> Callable[..., None]:
    """Give `command` the name and parameters of `work` (without its first one) and the common options.

    A parameter `waiting` of `work` stands for the options of _WAITING.
    """
    _, *own = inspect.signature(work, eval_str=True).parameters.values()
    if any(parameter.name == "waiting" for parameter in own):
        own = [parameter for parameter in own if parameter.name != "waiting"]
        common = {**_WAITING, **common}
    defaults = {bool: False}
    extra = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=kind, default=defaults.get(kind.__origin__))
        for name, kind in common.items()
    ]
    functools.update_wrapper(command, work)
    del command.__wrapped__  # type: ignore[attr-defined]
    command.__signature__ = inspect.Signature([*own, *extra])  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in [*own, *extra]}
    return command
