"""`modelyard apply`: make the platform have what a file says, after showing what that would change."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from modelyard.cli import options
from modelyard.cli.session import Session, say, session_of

if TYPE_CHECKING:
    from modelyard.sdk.apply.plan import Plan, Step

COLUMNS = (("ACTION", "action"), ("RESOURCE", "resource"), ("NAME", "name"), ("CHANGES", "changes"))


def apply(
    context: typer.Context,
    file: Annotated[Path, typer.Option("--file", "-f", help="A YAML file; - reads from stdin.")],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", "--plan", help="Show what would change, and change nothing.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Don't ask.")] = False,
    delete: Annotated[bool, typer.Option("--delete", help="Take away what the file says is absent.")] = False,
    wait: options.Wait = False,
    timeout: options.Timeout = None,
) -> None:
    """Make the platform have the resources in a file: containers, NAS volumes, notebooks, experiments, trainings, models, endpoints, stages."""
    from modelyard.sdk.apply.plan import Action, PlanBlocked, carry_out, make_plan

    session = session_of(context)
    plan = make_plan(session.client, sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8"))
    _show(session, plan)
    blocked = plan.of(Action.BLOCKED)
    if blocked:
        raise PlanBlocked(blocked)
    going = plan.of(Action.DELETE)
    if going and not delete:
        say(f"not taken away without --delete: {', '.join(step.title for step in going)}")
    todo = [*plan.of(Action.CREATE, Action.UPDATE), *(going if delete else ())]
    if dry_run:
        return
    if not todo and not wait:
        say("nothing to do")
        return
    if todo and not yes:
        _ask(len(todo), reads_stdin=str(file) == "-")
    carry_out(
        session.client,
        plan,
        may_delete=delete,
        wait=wait,
        on_step=lambda step, word: say(f"{step.title}: {word}"),
        timeout_seconds=timeout,
    )


def _ask(count: int, *, reads_stdin: bool) -> None:
    if reads_stdin or not sys.stdin.isatty():
        raise typer.BadParameter("there is nobody to ask: look with --dry-run, then give --yes", param_hint="--yes")
    typer.confirm(f"Do {count} {'step' if count == 1 else 'steps'}?", abort=True, err=True)


def _show(session: Session, plan: Plan) -> None:
    session.show_many([_row(step) for step in plan.steps], COLUMNS)


def _row(step: Step) -> dict[str, Any]:
    return {
        "action": step.action.value,
        "resource": step.item.kind.word,
        "name": step.item.key,
        "changes": [
            f"{change.field}: {_shown(change.seen)} → {_shown(change.wanted)}"
            + (" (stays as it was made)" if change.is_fixed else "")
            for change in step.changes
        ],
    }


def _shown(value: Any) -> str:
    if value in (None, "", [], {}, ()):
        return "nothing"
    if isinstance(value, tuple):
        return str(value[-1])  # pyright: ignore[reportUnknownArgumentType,reportUnknownVariableType]  # (id, name): the name is for people
    return str(value)
