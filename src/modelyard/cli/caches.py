"""`modelyard cache …`: what the platform on this machine keeps so that it need not be made or fetched again."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from modelyard.cli.forms import Columns
from modelyard.cli.platform import DEFAULT_HOME, HOME_VARIABLE
from modelyard.cli.session import say, session_of

if TYPE_CHECKING:
    from modelyard.server.caches import HomeCaches, Item

app = typer.Typer(help="What this machine keeps: environments, requirement layers, fetched data.", no_args_is_help=True)

_COLUMNS: Columns = (
    ("KIND", "kind"),
    ("SIZE", "size"),
    ("LAST USED", "usedAt"),
    ("HELD BY", "heldBy"),
    ("NAME", "name"),
)
_SUM_COLUMNS: Columns = (("KIND", "kind"), ("COUNT", "count"), ("SIZE", "size"), ("LAST USED", "usedAt"))
_DAY_SECONDS = 86400.0
_KINDS = ("environments", "layers", "data")


@app.command()
def show(
    context: typer.Context,
    each: Annotated[bool, typer.Option("--each", help="Every single thing, not only sums.")] = False,
) -> None:
    """Show what is kept, how large it is, and when it was last used."""
    items = _caches(context).list()
    rows = [_row(item) for item in items] if each else _sums(items)
    session_of(context).show_many(rows, _COLUMNS if each else _SUM_COLUMNS)


@app.command()
def prune(
    context: typer.Context,
    kind: Annotated[list[str] | None, typer.Option(help="environments, layers or data; may be repeated. All.")] = None,
    unused_days: Annotated[float, typer.Option(min=0, help="Only what was not used for so many days.")] = 7.0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
) -> None:
    """Remove what was not used for long. What something uses stays; what is removed is made or fetched again when it is needed."""
    chosen = tuple(kind or _KINDS)
    if unknown := [each for each in chosen if each not in _KINDS]:
        raise typer.BadParameter(f"'{unknown[0]}' is none of {', '.join(_KINDS)}", param_hint="--kind")
    gone = _caches(context).prune(chosen, unused_days * _DAY_SECONDS, is_dry=dry_run)
    session_of(context).show_many(_sums(gone), _SUM_COLUMNS)
    verb = "would be" if dry_run else "were"
    say(f"{_size(sum(item.size_bytes for item in gone))} {verb} removed")


def _caches(context: typer.Context) -> HomeCaches:
    """The caches of the home that the options name."""
    from modelyard.server.caches import HomeCaches

    home = session_of(context).settings.home or Path(os.environ.get(HOME_VARIABLE) or DEFAULT_HOME)
    return HomeCaches(home.expanduser().absolute())


def _row(item: Item) -> dict[str, object]:
    return {
        "kind": str(item.kind),
        "project": item.project_id,
        "name": f"{item.title} {item.name}",
        "sizeBytes": item.size_bytes,
        "size": _size(item.size_bytes),
        "usedAt": _moment(item.used_at),
        "heldBy": item.held_by,
    }


def _sums(items: Sequence[Item]) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for kind in _KINDS:
        of_one = [item for item in items if item.kind == kind]
        size = sum(item.size_bytes for item in of_one)
        newest = max((item.used_at for item in of_one), default=None)
        rows.append(
            {
                "kind": kind,
                "count": len(of_one),
                "sizeBytes": size,
                "size": _size(size),
                "usedAt": "" if newest is None else _moment(newest),
            }
        )
    return rows


def _size(count: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, tz=UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
