"""`modelyard storage …`: files in the object store."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from modelyard.cli.session import say, session_of

app = typer.Typer(help="Files in the object store (obs://).", no_args_is_help=True)

OBJECT_COLUMNS = (("NAME", "name"), ("BYTES", "bytes"), ("MODIFIED", "last_modified"), ("MD5", "hash"))
CONTAINER_COLUMNS = (("CONTAINER", "name"), ("OBJECTS", "count"), ("BYTES", "bytes"))
Place = Annotated[str, typer.Argument(metavar="PLACE", help="CONTAINER/PATH or obs://….")]
Parallel = Annotated[int, typer.Option("--parallel", min=1, max=32, help="How many files move at once.")]


@app.command()
def upload(
    context: typer.Context,
    local: Annotated[Path, typer.Argument(help="A file or a directory.")],
    place: Place,
    parallel: Parallel = 8,
) -> None:
    """Upload a file, or what is in a directory; prints where it lies."""
    session = session_of(context)
    with session.moving(f"upload {local.name or local}") as tell:
        uri = session.client.storage.upload(local, place, progress=tell, at_once=parallel)
    typer.echo(uri)


@app.command()
def download(
    context: typer.Context,
    place: Place,
    local: Annotated[Path, typer.Argument(help="A file or a directory.")] = Path(),
    parallel: Parallel = 8,
) -> None:
    """Download an object, or all that lies below a place; prints the files."""
    session = session_of(context)
    with session.moving(f"download {place}") as tell:
        files = session.client.storage.download(place, local, progress=tell, at_once=parallel)
    for file in files:
        typer.echo(str(file))


@app.command("list")
def list_(
    context: typer.Context,
    place: Annotated[str | None, typer.Argument(help="CONTAINER/PATH or obs://…; all containers without it.")] = None,
    recursive: Annotated[bool, typer.Option("--recursive", "-r", help="Also what lies deeper.")] = False,
) -> None:
    """List containers, or the objects at a place."""
    session = session_of(context)
    storage = session.client.storage
    if place is None:
        session.show_many(storage.containers(), CONTAINER_COLUMNS)
        return
    rows = [
        item.model_dump(exclude={"subdir"}) | ({"name": item.subdir, "bytes": None} if item.subdir else {})
        for item in storage.iterate(place, recursive=recursive)
    ]
    session.show_many(rows, OBJECT_COLUMNS)


@app.command()
def cat(context: typer.Context, place: Place) -> None:
    """Print an object's content."""
    sys.stdout.buffer.write(session_of(context).client.storage.read(place))
    sys.stdout.buffer.flush()


@app.command()
def delete(
    context: typer.Context,
    place: Place,
    recursive: Annotated[bool, typer.Option("--recursive", "-r", help="Also all that lies below it.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Don't ask.")] = False,
) -> None:
    """Delete an object, or a container; with --recursive also what lies below."""
    if recursive and not yes and sys.stdin.isatty():
        typer.confirm(f"Delete all that lies below {place}?", abort=True, err=True)
    count = session_of(context).client.storage.delete(place, recursive=recursive)
    say(f"{count} object{'' if count == 1 else 's'} deleted")


@app.command("create-container")
def create_container(context: typer.Context, name: Annotated[str, typer.Argument(help="Its name.")]) -> None:
    """Create a container."""
    session_of(context).client.storage.create_container(name)
    say(f"container '{name}' is there")


@app.command()
def account(context: typer.Context) -> None:
    """Show the account: tenant id, the API user to grant access to, and the store's URL."""
    session = session_of(context)
    session.show_one(session.client.storage.account())
