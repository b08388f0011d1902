"""`modelyard nas …`."""

from __future__ import annotations

import typer

from modelyard.cli import options
from modelyard.cli.session import say, session_of

app = typer.Typer(help="NAS volumes: directories that workloads share.", no_args_is_help=True)

COLUMNS = (
    ("ID", "nasVolumeId"),
    ("NAME", "nasVolumeName"),
    ("STATE", "nasVolumeStatusCode"),
    ("CREATED", "createdDatetime"),
)


@app.command()
def create(
    context: typer.Context,
    name: options.Name,
    description: options.Description = None,
    idempotency_key: options.IdempotencyKey = None,
) -> None:
    """Create a volume."""
    session = session_of(context)
    made = session.client.nas_volumes.create(name, description=description, idempotency_key=idempotency_key)
    session.show_one(made)


@app.command("list")
def list_(context: typer.Context) -> None:
    """List volumes."""
    session = session_of(context)
    session.show_many(session.client.nas_volumes.list(), COLUMNS)


@app.command()
def get(context: typer.Context, volume: options.Volume) -> None:
    """Show a volume."""
    session = session_of(context)
    session.show_one(session.client.nas_volumes.get(volume))


@app.command()
def delete(context: typer.Context, volume: options.Volume) -> None:
    """Delete a volume and its content."""
    session_of(context).client.nas_volumes.delete(volume)
    say(f"NAS volume '{volume}' is deleted")
