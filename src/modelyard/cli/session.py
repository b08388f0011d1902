"""One run of the command: where the platform is, how to print, and the client, made when it is first needed.

The commands import neither an HTTP client nor Rich, so that help and completion answer at once; this module loads them when there is work.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import typer

from modelyard.cli.forms import Columns, Output
from modelyard.sdk.errors import NotConfigured

if TYPE_CHECKING:
    from pydantic import BaseModel

    from modelyard.sdk.client import Client
    from modelyard.sdk.transfers import Progress
    from modelyard.wire import DeletionOut

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Settings:
    """The global options."""

    home: Path | None = None
    api_url: str | None = None
    app_key: str | None = None
    token: str | None = None
    ca_file: Path | None = None
    output: Output = Output.TABLE
    with_traceback: bool = False


class Session:
    """The global options at work. `read_credentials` gives what the platform in a home has sealed."""

    def __init__(self, settings: Settings, read_credentials: Callable[[Path], Mapping[str, Any]]) -> None:
        self.settings = settings
        self._read_credentials = read_credentials
        self._client: Client | None = None
        self._person: Client | None = None

    @property
    def client(self) -> Client:
        """The client. Raises `NotConfigured`."""
        if self._client is None:
            from modelyard.sdk.client import Client  # loading httpx and pydantic takes longer than --help may
            from modelyard.sdk.connection import Connection, Credentials

            def read(home: Path) -> Credentials | None:
                if not home.is_dir():
                    return None
                try:
                    return Credentials.model_validate(self._read_credentials(home))
                except Exception as error:  # whatever keeps the home from being read: there is no platform to talk to
                    raise NotConfigured(str(error)) from error

            settings = self.settings
            self._client = Client(
                Connection.find(
                    api_url=settings.api_url,
                    app_key=settings.app_key,
                    access_token=settings.token,
                    ca_file=settings.ca_file,
                    home=settings.home,
                    read=read,
                )
            )
        return self._client

    def client_of(self, user: str | None, password: str | None) -> Client:
        """A client that calls as a person: as this one, else as the token that was given says, else as the admin of the platform in the home.

        Raises `NotConfigured`, `Unauthenticated`.
        """
        from dataclasses import replace

        from modelyard.sdk.client import Client
        from modelyard.sdk.connection import has_token_variable, home_path

        plain = self.client
        if user is None or password is None:
            is_given = self.settings.token is not None or (self.settings.home is None and has_token_variable())
            if is_given:
                return plain
            known = self._read_credentials(home_path(self.settings.home))
            user, password = str(known["adminUser"]), str(known["adminPassword"])
        token = plain.sessions.access_token(user, password)
        self._person = Client(replace(plain.connection, access_token=token))
        return self._person

    def close(self) -> None:
        """Close the clients' connections."""
        for client in (self._client, self._person):
            if client is not None:
                client.close()

    def show_many(self, resources: Sequence[BaseModel | Mapping[str, Any]], columns: Columns) -> None:
        """Print a list: a table with these columns, or all that is known as JSON or YAML."""
        from modelyard.cli import printing  # Rich and YAML only where something is printed

        printing.show_many(resources, columns, self.settings.output)

    def show_one(self, resource: BaseModel | Mapping[str, Any]) -> None:
        """Print one resource."""
        from modelyard.cli import printing

        printing.show_one(resource, self.settings.output)

    def show_json(self, value: Any) -> None:
        """Print an answer whose form is the user's model's own: JSON, or YAML where asked for."""
        from modelyard.cli import printing

        printing.show_json(value, self.settings.output)

    @contextmanager
    def waiting(self, what: str, state: Callable[[R], str]) -> Generator[Callable[[R], None], None, None]:
        """Show on stderr what is waited for; gives the callback for a wait's `progress`."""
        from modelyard.cli import progress

        with progress.waiting(what, state) as tell:
            yield tell

    @contextmanager
    def moving(self, what: str) -> Generator[Callable[[Progress], None], None, None]:
        """Show a transfer on stderr; gives the callback for its `progress`."""
        from modelyard.cli import progress

        with progress.moving(what) as tell:
            yield tell


def session_of(context: typer.Context) -> Session:
    """The session of this run."""
    found = context.find_object(Session)
    if found is None:
        raise RuntimeError("the root command has not run")
    return found


def tell_deletions(kind: str, results: Sequence[DeletionOut]) -> None:
    """Say of each what became of it; the command fails when one was not deleted."""
    for item in results:
        say(f"{kind} {item.id} " + ("is deleted" if item.is_successful else f"stays: {item.result_message}"))
    if not all(item.is_successful for item in results):
        raise typer.Exit(1)


def say(text: str) -> None:
    """A word to the user on stderr; stdout is for data."""
    typer.echo(text, err=True)
