"""`modelyard endpoint key …`."""

from __future__ import annotations

from typing import Annotated

import typer

from modelyard.cli import options
from modelyard.cli.session import say, session_of

app = typer.Typer(help="API keys of endpoints, for stages that ask for one.", no_args_is_help=True)

COLUMNS = (
    ("ID", "apiKeyId"),
    ("NAME", "name"),
    ("CREATED", "createdDatetime"),
    ("BY", "createdBy"),
    ("LAST USED", "lastUsedDatetime"),
    ("CALLS", "callsCount"),
)


@app.command()
def create(
    context: typer.Context,
    endpoint: options.Endpoint,
    name: options.Name,
    rate: Annotated[str | None, typer.Option(help="REQUESTS[/SECONDS] of this key, e.g. 10 or 600/60.")] = None,
    idempotency_key: options.IdempotencyKey = None,
) -> None:
    """Make an API key. It is shown this once; send it in the header x-api-key."""
    session = session_of(context)
    limit = None if rate is None else rate_of(rate, "--rate")
    keys = session.client.endpoints
    session.show_one(keys.create_api_key(endpoint, name, rate_limit=limit, idempotency_key=idempotency_key))


@app.command("list")
def list_(context: typer.Context, endpoint: options.Endpoint) -> None:
    """List an endpoint's API keys, oldest first."""
    session = session_of(context)
    session.show_many(session.client.endpoints.api_keys(endpoint), COLUMNS)


@app.command()
def revoke(
    context: typer.Context,
    endpoint: options.Endpoint,
    key: Annotated[str, typer.Argument(help="The API key's name or id.")],
) -> None:
    """Revoke an API key. To rotate one, create another first."""
    session_of(context).client.endpoints.revoke_api_key(endpoint, key)
    say(f"API key '{key}' is revoked")


def rate_of(text: str, option: str) -> dict[str, int]:
    """Read REQUESTS[/SECONDS]."""
    requests, _, seconds = text.partition("/")
    if not requests.isdecimal() or not (seconds or "1").isdecimal():
        raise typer.BadParameter(f"'{text}' is not REQUESTS[/SECONDS], e.g. 100 or 1000/60", param_hint=option)
    return {"requests": int(requests), "seconds": int(seconds or 1)}
