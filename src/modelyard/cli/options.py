"""Arguments and options that several commands have in common, and how their values are read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated

import typer

from modelyard.cli.platform import read_credentials
from modelyard.cli.session import Session, Settings

_COMPLETION_LIMIT = 100


def names_of(group: str) -> Callable[[typer.Context, str], list[str]]:
    """Completion of a resource's name: asks the platform, and stays silent when it doesn't answer."""

    def complete(context: typer.Context, incomplete: str) -> list[str]:
        given = context.find_root().params
        fields = {name: given.get(name) for name in ("home", "api_url", "app_key", "token", "ca_file")}
        session = Session(Settings(**fields), read_credentials)  # pyright: ignore[reportArgumentType] - the root command's own options
        try:
            items = getattr(session.client, group).list()[:_COMPLETION_LIMIT]
            return [item.name for item in items if item.name.startswith(incomplete)]
        except Exception:  # whatever it is: a Tab key must never print an error
            return []
        finally:
            session.close()

    return complete


def pairs(values: Sequence[str] | None, option: str) -> dict[str, str] | None:
    """Read `KEY=VALUE` options; None when there is none. Raises the usage error."""
    if not values:
        return None
    found: dict[str, str] = {}
    for value in values:
        key, sign, rest = value.partition("=")
        if not sign or not key:
            raise typer.BadParameter(f"'{value}' is not KEY=VALUE", param_hint=option)
        if key in found:
            raise typer.BadParameter(f"'{key}' is given twice", param_hint=option)
        found[key] = rest
    return found


Name = Annotated[str, typer.Argument(help="Its name, up to 50 characters.")]
NewName = Annotated[str | None, typer.Option("--name", help="A new name.")]
Description = Annotated[str | None, typer.Option("--description", help="A description, up to 255 characters.")]
Tags = Annotated[list[str] | None, typer.Option("--tag", metavar="KEY=VALUE", help="A tag; may be repeated, up to 10.")]
IdempotencyKey = Annotated[
    str | None,
    typer.Option(
        "--idempotency-key",
        metavar="KEY",
        help="A name for this request: sent again with it, the same resource comes back instead of a second one.",
    ),
]
Page = Annotated[int, typer.Option("--page", min=1, help="Which page, with --limit.")]
Limit = Annotated[int | None, typer.Option("--limit", min=1, max=1000, help="At most so many; all without it.")]
Wait = Annotated[bool, typer.Option("--wait", "-w", help="Wait until it is ready or has failed.")]
WaitGone = Annotated[bool, typer.Option("--wait", "-w", help="Wait until it is gone.")]
Timeout = Annotated[float | None, typer.Option("--timeout", min=0, help="Seconds to wait at most.")]
Follow = Annotated[bool, typer.Option("--follow", "-f", help="Go on until the end.")]
Instance = Annotated[int, typer.Option("--instance", min=0, help="Which instance, from 0.")]

Training = Annotated[str, typer.Argument(metavar="TRAINING", help="Name or id.", autocompletion=names_of("trainings"))]
TrainingsToDelete = Annotated[
    list[str], typer.Argument(metavar="TRAINING...", help="Names or ids.", autocompletion=names_of("trainings"))
]
Notebook = Annotated[str, typer.Argument(metavar="NOTEBOOK", help="Name or id.", autocompletion=names_of("notebooks"))]
Experiment = Annotated[
    str, typer.Argument(metavar="EXPERIMENT", help="Name or id.", autocompletion=names_of("experiments"))
]
ExperimentsToDelete = Annotated[
    list[str], typer.Argument(metavar="EXPERIMENT...", help="Names or ids.", autocompletion=names_of("experiments"))
]
Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="NAME (its newest version), NAME:VERSION, NAME@ALIAS or id.",
        autocompletion=names_of("models"),
    ),
]
Endpoint = Annotated[str, typer.Argument(metavar="ENDPOINT", help="Name or id.", autocompletion=names_of("endpoints"))]
Stage = Annotated[str, typer.Argument(metavar="STAGE", help="ENDPOINT/STAGE or id.")]
Image = Annotated[str, typer.Argument(metavar="IMAGE", help="Name or id.", autocompletion=names_of("images"))]
Volume = Annotated[str, typer.Argument(metavar="VOLUME", help="Name or id.", autocompletion=names_of("nas_volumes"))]
Flavor = Annotated[str, typer.Option("--flavor", help="Instance type: name or id.", autocompletion=names_of("flavors"))]
