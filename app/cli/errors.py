"""Errors of the command line: message, advice, and an exit code of the table in docs/api.md."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

SUCCEEDED, NOT_SUCCEEDED, USAGE, UNREACHABLE, SUPERSEDED, INTERRUPTED = 0, 1, 2, 3, 4, 130


@dataclass
class CliError(Exception):
    """Error that ends a command.

    `message` says what is wrong, `advice` what to do; `document` is what `--json` prints.
    """

    message: str
    advice: str = ""
    exit_code: int = NOT_SUCCEEDED
    document: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.message


def usage(message: str, advice: str = "") -> CliError:
    """Return the error for a wrong call of the command; nothing was sent to Sluice."""
    return CliError(message, advice, USAGE, {"code": "usage", "detail": message})


def unreachable(url: str, why: str, advice: str = "") -> CliError:
    """Return the error for a Sluice that does not answer at `url`."""
    advice = advice or "Is it running (`sluice up`)? Another address: --url, SLUICE_URL or ~/.config/sluice/config.toml."
    message = f"Sluice does not answer at {url}: {why}"
    return CliError(message, advice, UNREACHABLE, {"code": "unreachable", "detail": message})


def refused(status: int, problem: dict[str, Any]) -> CliError:
    """Return the error for a problem (RFC 9457) from Sluice, with each invalid field on its own line."""
    code, errors = str(problem.get("code")), problem.get("errors") or []
    message = str(problem.get("detail") or problem.get("title") or f"HTTP {status}")
    if errors:
        lines = [f"  {error.get('field') or 'body'}: {error.get('message')}" for error in errors]
        message = "\n".join([f"Sluice refused it ({code}):", *lines])
    exit_code = USAGE if 400 <= status < 500 and status != 409 else NOT_SUCCEEDED
    return CliError(message, _ADVICE.get(code, ""), exit_code, problem)


_ADVICE = {
    "unauthenticated": "Give a token: --token, SLUICE_TOKEN or ~/.config/sluice/config.toml. "
    'In Sluice\'s checkout: eval "$(make -s env)".',
    "insufficient_scope": "An admin makes a token that may do this: `sluice token create NAME --scope write`.",
    "unknown_service": "`sluice ps` lists the services; `sluice deploy NAME --image IMAGE` makes one.",
    "unknown_deployment": "`sluice history` lists the deployments.",
    "unknown_build": "Its number is what `sluice build` begins with, and on the page of its service.",
    "unknown_instance": "`sluice ps` lists the instances; `sluice ps --all` those that have gone as well.",
    "unknown_revision": "`sluice history NAME` shows which revisions there were.",
    "revision_not_found": "`sluice history NAME` shows which revisions there were.",
    "unknown_token": "`sluice token list` lists the tokens.",
    "last_admin_token": "`sluice token create NAME --scope admin` makes another one.",
    "logs_gone": "`sluice status NUMBER` of the deployment in which it failed still shows the end of its log.",
    "redacted_value": "Put the value itself in its place, or leave the field out: without a file, what is not named stays.",
    "not_in_that_state": "`sluice status NUMBER` shows what is possible now.",
    "not_ready": "`sluice doctor` looks at each part, and says what to do.",
    "store_unavailable": "Is the disk of Sluice's machine full? `sluice doctor` looks.",
    "engine_error": "`sluice doctor` looks at the engine.",
    "gateway_upgrade_failed": "The old gateway serves on. `sluice doctor` looks at both.",
    "revision_conflict": "Somebody deployed in between: `sluice status NAME` shows the present revision.",
    "deployment_in_progress": "Follow the one that runs (`sluice status NAME --follow`), abort it (`sluice abort NAME`), "
    "or deploy with --set on_conflict=queue.",
    "no_rollback_target": "No earlier revision has served: deploy a version that works.",
    "never_deployed": "`sluice deploy NAME --image IMAGE` comes first.",
    "invalid_compose": "Nothing was started. docs/compose.md tells what becomes of each key.",
    "invalid_spec": "Nothing was started. docs/cli.md describes the fields, and so does /docs at Sluice's address.",
    "engine_unavailable": "Is Docker running on Sluice's machine? `sluice status` shows what answers.",
    "internal": "Sluice's log says more.",
}
