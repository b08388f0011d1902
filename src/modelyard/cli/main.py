"""The command `modelyard`: its groups, the global options, and how errors end it.

Global options may stand anywhere in a command line (`modelyard training list --output json`): before the line is read they are moved to where
its command looks for them.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from modelyard import __version__
from modelyard.cli import (
    applying,
    caches,
    catalogue,
    endpoints,
    experiments,
    exports,
    logs,
    models,
    nas,
    notebooks,
    people,
    stages,
    storage,
    trainings,
)
from modelyard.cli.exits import Code, report
from modelyard.cli.forms import Output
from modelyard.cli.platform import platform, read_credentials
from modelyard.cli.session import Session, Settings

_GROUPS = {
    "training": trainings.app,
    "notebook": notebooks.app,
    "experiment": experiments.app,
    "model": models.app,
    "endpoint": endpoints.app,
    "stage": stages.app,
    "image": catalogue.images,
    "flavor": catalogue.flavors,
    "nas": nas.app,
    "storage": storage.app,
    "logs": logs.app,
    "cache": caches.app,
    "member": people.members,
    "session": people.sessions,
}
_WITH_VALUE = ("--home", "--api-url", "--app-key", "--token", "--ca-file", "--output")
_WITHOUT_VALUE = ("--traceback",)
_OWN_OPTIONS = {
    "up": ("--home",),
    "down": ("--home",),
    "status": ("--home", "--output"),
    "doctor": ("--home", "--output"),
    "credentials": ("--home", "--output"),
    "env": ("--home",),
}
_EPILOG = "The options of `modelyard --help` (--output, --home …) may stand anywhere."


class Root(TyperGroup):
    """The root group: moves global options to the front, and ends every error in one line and an exit code."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """See click."""
        return super().parse_args(ctx, gathered(args))

    def invoke(self, ctx: Any) -> Any:
        """See click."""
        with_traceback = bool(ctx.params.get("traceback"))
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            typer.echo("interrupted", err=True)
            raise typer.Exit(Code.INTERRUPTED) from None
        except (BrokenPipeError, typer.Exit, typer.Abort):
            raise
        except Exception as error:
            if _is_usage_error(error):
                raise
            raise typer.Exit(report(error, with_traceback=with_traceback)) from None


app = typer.Typer(
    name="modelyard",
    cls=Root,
    no_args_is_help=True,
    rich_markup_mode=None,  # plain help: Rich would take longer to load than all the rest
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(platform)
app.command("env")(exports.env)
app.command("apply")(applying.apply)
for _name, _group in _GROUPS.items():
    app.add_typer(_group, name=_name, epilog=_EPILOG)


@app.callback()
def root(
    context: typer.Context,
    home: Annotated[Path | None, typer.Option(help="Home of a platform on this machine [MODELYARD_HOME].")] = None,
    api_url: Annotated[str | None, typer.Option(help="Where the platform is [MODELYARD_API_URL].")] = None,
    app_key: Annotated[str | None, typer.Option(help="Which project [MODELYARD_APP_KEY].")] = None,
    token: Annotated[str | None, typer.Option(help="Access token [MODELYARD_ACCESS_TOKEN].")] = None,
    ca_file: Annotated[Path | None, typer.Option(help="CA certificate to trust [MODELYARD_CA_FILE].")] = None,
    output: Annotated[Output, typer.Option(help="How data is printed.")] = Output.TABLE,
    traceback: Annotated[bool, typer.Option("--traceback", help="Show Python's traceback of an error.")] = False,
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False,
) -> None:
    """Modelyard: notebooks, training, models and endpoints on your own machines."""
    if version:
        typer.echo(f"modelyard {__version__}")
        raise typer.Exit
    session = Session(Settings(home, api_url, app_key, token, ca_file, output, traceback), read_credentials)
    context.obj = session
    context.call_on_close(session.close)


def main() -> None:
    """Run the command."""
    app()


def gathered(args: Sequence[str]) -> list[str]:
    """The command line with each global option where its command reads it.

    Before the command for the resource groups; behind it for the platform's own commands, which have such options themselves.
    """
    found: list[list[str]] = []
    rest: list[str] = []
    words = iter(args)
    for word in words:
        name, sign, _ = word.partition("=")
        if word == "--":
            rest += [word, *words]
        elif name in _WITH_VALUE and not sign:
            found.append([word, *islice(words, 1)])
        elif name in _WITH_VALUE or word in _WITHOUT_VALUE:
            found.append([word])
        else:
            rest.append(word)
    command = next((word for word in rest if not word.startswith("-")), None)
    own = _OWN_OPTIONS.get(command or "", ())
    if command in _GROUPS or command == "apply":
        return [*chain.from_iterable(found), *rest]
    if not own or command not in args[1:]:
        return list(args)
    behind = [option for option in found if option[0].partition("=")[0] in own]
    before = [option for option in found if option not in behind]
    return [*chain.from_iterable(before), *rest, *chain.from_iterable(behind)]


def _is_usage_error(error: Exception) -> bool:
    """Whether the framework itself knows how to end with this error (its classes are not public under one name in all versions)."""
    return hasattr(error, "exit_code") and hasattr(error, "format_message")
