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
    advice = advice or "Start it with `sluice up`, or set the address: --url, SLUICE_URL or ~/.config/sluice/config.toml."
    message = f"Sluice does not answer at {url}: {why}"
    return CliError(message, advice, UNREACHABLE, {"code": "unreachable", "detail": message})


def refused(status: int, problem: dict[str, Any]) -> CliError:
    """Return the error for a problem (RFC 9457) from Sluice, with each invalid field on its own line."""
    code, errors = str(problem.get("code")), problem.get("errors") or []
    message = str(problem.get("detail") or problem.get("title") or f"HTTP {status}")
    if errors:
        lines = [f"  {error.get('field') or 'body'}: {error.get('message')}" for error in errors]
        message = "\n".join([f"request refused ({code}):", *lines])
    exit_code = USAGE if 400 <= status < 500 and status != 409 else NOT_SUCCEEDED
    return CliError(message, _ADVICE.get(code, ""), exit_code, problem)


_ADVICE = {
    "unauthenticated": "Set a token: --token, SLUICE_TOKEN or ~/.config/sluice/config.toml. "
    'In a checkout of Sluice: eval "$(make -s env)".',
    "insufficient_scope": "An admin can create a token with this scope: `sluice token create NAME --scope write`.",
    "unknown_service": "`sluice ps` lists the services; `sluice deploy NAME --image IMAGE` creates one.",
    "unknown_deployment": "`sluice history` lists the deployments.",
    "unknown_build": "`sluice build` prints the number of a build; the page of its service lists the builds.",
    "unknown_instance": "`sluice ps` lists the instances; `sluice ps --all` includes removed ones.",
    "unknown_revision": "`sluice history NAME` lists the revisions.",
    "revision_not_found": "`sluice history NAME` lists the revisions.",
    "unknown_token": "`sluice token list` lists the tokens.",
    "last_admin_token": "`sluice token create NAME --scope admin` creates another one.",
    "logs_gone": "`sluice status NUMBER` of the deployment in which the instance failed shows the end of its log.",
    "redacted_value": "Give the value itself, or omit the field: a deployment without a file keeps omitted fields.",
    "not_in_that_state": "`sluice status NUMBER` shows the allowed actions.",
    "not_ready": "`sluice doctor` checks each part and says what to do.",
    "store_unavailable": "Check the disk of Sluice's host: `sluice doctor`.",
    "engine_error": "`sluice doctor` checks the engine.",
    "gateway_upgrade_failed": "The old gateway keeps serving. `sluice doctor` checks both.",
    "revision_conflict": "Another deployment came first: `sluice status NAME` shows the current revision.",
    "deployment_in_progress": "Follow the running deployment (`sluice status NAME --follow`), "
    "abort it (`sluice abort NAME`), or deploy with --set on_conflict=queue.",
    "no_rollback_target": "No earlier revision has served: deploy a working version.",
    "never_deployed": "Deploy the service first: `sluice deploy NAME --image IMAGE`.",
    "invalid_compose": "Nothing was started. docs/compose.md describes each key.",
    "invalid_spec": "Nothing was started. docs/api.md describes the fields, and so does /docs at Sluice's address.",
    "engine_unavailable": "Check that Docker runs on Sluice's host: `sluice status`.",
    "internal": "Sluice's log has the details.",
}
