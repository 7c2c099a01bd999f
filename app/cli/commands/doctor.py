"""sluice doctor: a check of Sluice's infrastructure, with advice for each problem found."""

from __future__ import annotations

import textwrap

from app.cli.command import CommandContext, command
from app.cli.errors import NOT_SUCCEEDED
from app.cli.output.console import coloured
from app.cli.output.messages import Document
from services.printable import strip_control_characters

_WORDS = {"ok": "ready", "warning": "paused", "wrong": "failed"}
"""Status of a finding → instance or deployment status whose colour it gets."""


@command
async def doctor(context: CommandContext) -> int:
    """Check engine, network, firewall, gateway, store, disk and clock. Exit code 1 if something is wrong."""
    context.out.say("Checking; starts a short-lived container to test whether it reaches the bridge.")
    found = await context.client.get("/doctor")
    context.out.result(found, _sheet(found["findings"]), found["status"])
    return 0 if found["status"] == "well" else NOT_SUCCEEDED


def _sheet(findings: list[Document]) -> str:
    width = max((len(finding["part"]) for finding in findings), default=0)
    lines = []
    for finding in findings:
        status = coloured(_WORDS[finding["status"]], finding["status"].ljust(7))
        lines.append(f"{status}  {finding['part'].ljust(width)}  {finding['detail']}".rstrip())
        if finding["advice"]:
            indent = " " * (width + 11)
            lines += textwrap.wrap(
                strip_control_characters(finding["advice"]), 100, initial_indent=indent, subsequent_indent=indent
            )
    return "\n".join(lines)
