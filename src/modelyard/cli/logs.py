"""`modelyard logs …`: search in the log service."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import islice
from typing import Annotated

import typer

from modelyard.cli.session import session_of

app = typer.Typer(help="The log service.", no_args_is_help=True)

COLUMNS = (("TIME", "time"), ("LEVEL", "logLevel"), ("CATEGORY", "category"), ("BODY", "body"))
_FORMATS = ["%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%S%z", "%Y-%m-%d"]


@app.command()
def search(
    context: typer.Context,
    query: Annotated[str, typer.Argument(help="""E.g. 'category:"easymaker.training" AND body:error*'.""")] = "",
    since: Annotated[datetime | None, typer.Option(formats=_FORMATS, help="Not before (UTC).")] = None,
    until: Annotated[datetime | None, typer.Option(formats=_FORMATS, help="Before (UTC).")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many lines.")] = 100,
    instance: Annotated[
        int | None, typer.Option(min=0, help="Only lines of this instance of a training, from 0.")
    ] = None,
    ascending: Annotated[bool, typer.Option("--ascending", help="Oldest first.")] = False,
) -> None:
    """Search in the logs; newest first."""
    session = session_of(context)
    if instance is not None:
        query = f'({query}) AND instanceIndex:"{instance}"' if query.strip() else f'instanceIndex:"{instance}"'
    lines = session.client.logs.iterate(
        query, since=_utc(since), until=_utc(until), order="asc" if ascending else "desc"
    )
    session.show_many(list(islice(lines, limit)), COLUMNS)


def _utc(moment: datetime | None) -> datetime | None:
    if moment is None or moment.tzinfo is not None:
        return moment
    return moment.replace(tzinfo=UTC)
