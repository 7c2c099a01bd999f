"""Shared handling of the forms that deploy: answers, then their plan, then the deployment."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from fastapi import Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from app.audit import note_refusal
from app.auth import Caller
from app.context import AppContext
from app.pages import render
from app.pages.form_commands import FormCommand
from app.problems import CODES, Problem, as_problem
from services.engine.port import EngineError
from services.errors import RequestError
from services.rollouts.requests.command import RequestContext


@dataclass(frozen=True)
class Form:
    """A form of the dashboard.

    `fields` holds the form's fields, `address` the URL of its answers, and `back` the URL after a cancel. `parse` returns
    the command of the answers; it raises Problem if the answers are invalid or the viewer may not do it. `values` holds
    further values for the form's template.
    """

    kind: str
    fields: tuple[str, ...]
    address: str
    back: str
    parse: Callable[[Mapping[str, str]], Awaitable[FormCommand]]
    values: Mapping[str, Any] = field(default_factory=dict)


def show_form(form: Form, answers: Mapping[str, str], problem: Problem | None = None) -> HTMLResponse:
    """Show the form, with each error beside its field, and an error of no field at the top."""
    errors: dict[str, str] = {}
    for each in problem.errors if problem is not None else ():
        name = each.field if each.field in form.fields else "fields"
        message = each.message if name == each.field else f"{each.field}: {each.message}"
        errors[name] = f"{errors[name]}; {message}" if name in errors else message
    error = problem.detail if problem is not None and not errors.keys() & set(form.fields) else None
    status = (problem.status or CODES[problem.code][0]) if problem is not None else 200
    values = {
        "form": form, "kind": form.kind, "answers": answers, "errors": errors, "refusal": error,
        "more": problem.more if problem is not None else {}, "stream": None,
    }  # fmt: skip
    return render.page("change.html", {**form.values, **values}, status)


async def show_plan(request: Request, viewer: Caller, form: Form, answers: Mapping[str, str]) -> HTMLResponse:
    """Show the plan of the command, or the form with the error if the command is refused."""
    sluice: AppContext = request.app.state.sluice
    try:
        form_command = await form.parse(answers)
        plan = await sluice.dry_run.preview(form_command.command, viewer.actor)
    except (Problem, RequestError, EngineError) as error:
        return show_form(form, answers, as_problem(error))
    values = {
        "form": form, "kind": form.kind, "answers": answers, "plan": plan, "command": form_command.cli,
        "curl": form_command.curl(str(request.base_url)), "stream": None,
    }  # fmt: skip
    return render.page("plan.html", values)


async def handle_post(request: Request, viewer: Caller, form: Form) -> Response:
    """Handle a form by its `step`.

    `plan` shows the plan, `change` shows the form again, and `do` starts the deployment and redirects to its page.
    """
    sluice: AppContext = request.app.state.sluice
    submitted = await request.form(max_files=0, max_fields=20)
    answers = {name: str(submitted.get(name, "")) for name in form.fields}
    step = submitted.get("step")
    if step == "change":
        return show_form(form, answers)
    if step != "do":
        return await show_plan(request, viewer, form, answers)
    try:
        form_command = await form.parse(answers)
        id = await sluice.submitter.submit(form_command.command, RequestContext(viewer.actor))
    except (Problem, RequestError, EngineError) as error:
        problem = as_problem(error)
        await note_refusal(request, problem.status or CODES[problem.code][0], problem.code, problem.detail)
        return show_form(form, answers, problem)
    return RedirectResponse(f"/ui/deployments/{id}", 303)
