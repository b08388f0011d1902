"""`modelyard member …` and `modelyard session …`: for people, by their own name and password.

On the machine of the platform its admin's are at hand; elsewhere `--user` says who asks, or `--token` carries a token of such a person.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from modelyard.cli import options
from modelyard.cli.session import say, session_of

if TYPE_CHECKING:
    from modelyard.sdk.client import Client

members = typer.Typer(help="Members: who may use the project. For its owners and for admins.", no_args_is_help=True)
sessions = typer.Typer(help="Sign-ins of people with browsers. For admins.", no_args_is_help=True)

MEMBER_COLUMNS = (("ID", "userId"), ("NAME", "userName"), ("ROLE", "roleCode"), ("SINCE", "createdDatetime"))
SESSION_COLUMNS = (
    ("ID", "sessionId"),
    ("USER", "userName"),
    ("FROM", "address"),
    ("BROWSER", "userAgent"),
    ("SINCE", "createdDatetime"),
    ("LAST SEEN", "lastSeenDatetime"),
)
User = Annotated[
    str | None,
    typer.Option("--user", metavar="NAME", help="Who asks; the password is asked for, or in MODELYARD_PASSWORD."),
]


@members.command("list")
def list_members(
    context: typer.Context, page: options.Page = 1, limit: options.Limit = None, user: User = None
) -> None:
    """List the members."""
    found = _client(context, user).members.list(page=page, limit=limit)
    session_of(context).show_many(found, MEMBER_COLUMNS)


@members.command("add")
def add_member(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="The user's name.")],
    owner: Annotated[bool, typer.Option("--owner/--no-owner", help="May look after the members as well.")] = False,
    new_user: Annotated[
        bool,
        typer.Option(
            "--new-user", help="Add the user to the platform, too; the password is asked for, or read from stdin."
        ),
    ] = False,
    idempotency_key: options.IdempotencyKey = None,
    user: User = None,
) -> None:
    """Make a user a member, or change a member's role."""
    password = _new_password(name) if new_user else None
    role = "OWNER" if owner else "MEMBER"
    made = _client(context, user).members.add(name, role=role, password=password, idempotency_key=idempotency_key)
    session_of(context).show_one(made)


@members.command("remove")
def remove_member(
    context: typer.Context, name: Annotated[str, typer.Argument(help="Name or id.")], user: User = None
) -> None:
    """Make a user a member no more; what they have open in browsers ends within seconds."""
    _client(context, user).members.remove(name)
    say(f"'{name}' is a member no more")


@sessions.command("list")
def list_sessions(
    context: typer.Context, page: options.Page = 1, limit: options.Limit = None, user: User = None
) -> None:
    """List sign-ins, newest first."""
    found = _client(context, user).sessions.list(page=page, limit=limit)
    session_of(context).show_many(found, SESSION_COLUMNS)


@sessions.command("revoke")
def revoke_session(
    context: typer.Context, session_id: Annotated[str, typer.Argument(metavar="ID")], user: User = None
) -> None:
    """End a sign-in; what its browser has open ends within seconds."""
    _client(context, user).sessions.revoke(session_id)
    say(f"the sign-in {session_id} has ended")


def _client(context: typer.Context, user: str | None) -> Client:
    password = None
    if user is not None:
        password = _password(user)
    return session_of(context).client_of(user, password)


def _password(user: str) -> str:
    from modelyard.sdk.connection import password_variable

    return password_variable() or str(typer.prompt(f"Password of {user}", hide_input=True, err=True))


def _new_password(name: str) -> str:
    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\n")
    return str(typer.prompt(f"Password for {name}", hide_input=True, confirmation_prompt=True, err=True))
