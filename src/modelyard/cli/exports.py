"""`modelyard env`: the variables that point scripts written for the official client at this platform.

Each way covers another part of the client (docs/guides/existing-scripts.md); which variables the client reads is its releases' own contract.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from modelyard.cli.platform import DEFAULT_HOME, HomeOption, read_credentials

LOCAL_PORT = 10090
_LOOPBACK = "127.0.0.1,localhost,::1"


class Way(StrEnum):
    """How scripts are pointed at the platform."""

    UNCHANGED = "unchanged"
    TOKEN = "token"  # noqa: S105  # the name of a way, not a token
    URL = "url"
    LOCAL = "local"


class Form(StrEnum):
    """What is printed."""

    SH = "sh"
    POWERSHELL = "powershell"
    JSON = "json"


class WayClosed(Exception):
    """This platform can't be reached in this way as it runs now."""


def env(
    home: HomeOption = DEFAULT_HOME,
    way: Annotated[
        Way,
        typer.Option(
            help="unchanged: every release, scripts as they are. token: from 2.1.0, without a proxy. "
            "url: from 2.1.0, the REST API alone. local: every release, the REST API alone."
        ),
    ] = Way.UNCHANGED,
    form: Annotated[Form, typer.Option("--format", help="How the variables are printed.")] = Form.SH,
) -> None:
    """Print the environment for scripts of the official client `easymaker`: eval "$(modelyard env)"."""
    typer.echo(printed(variables(read_credentials(home), way), form))


def variables(known: Mapping[str, Any], way: Way) -> dict[str, str]:
    """The variables of a way, from what `modelyard credentials` shows. Raises `WayClosed`."""
    identity = {"EM_APPKEY": known["appKey"], "EM_REGION": known["region"]}
    match way:
        case Way.URL:
            return {**identity, "EM_ACCESS_TOKEN": known["accessToken"], "EM_API_URL": known["apiUrl"]}
        case Way.TOKEN:
            return {
                **identity,
                "EM_API_URL": known["apiUrl"],
                "EM_TOKEN": known["accessToken"],
                "EM_GROUP_ID": known["tenantId"],
                **_trust(known),
            }
        case Way.LOCAL:
            url = str(known["apiUrl"])
            if url != f"http://127.0.0.1:{LOCAL_PORT}":
                raise WayClosed(
                    f"with EM_PROFILE=local the client calls http://127.0.0.1:{LOCAL_PORT}, and this platform is at {url}; "
                    f"start it with --http-port {LOCAL_PORT}, or choose --way unchanged"
                )
            return {
                **identity,
                "EM_ACCESS_TOKEN": known["accessToken"],
                "EM_SECRET_KEY": known["secretKey"],
                "EM_PROFILE": "local",
            }
        case Way.UNCHANGED:
            if known.get("caBundle") is None:
                raise WayClosed(
                    "the platform serves a certificate of your own, which does not speak for the vendor's host names; choose --way token"
                )
            return {
                **identity,
                "EM_ACCESS_TOKEN": known["accessToken"],
                "EM_SECRET_KEY": known["secretKey"],
                "HTTPS_PROXY": known["apiUrl"],
                "https_proxy": known["apiUrl"],
                "NO_PROXY": _LOOPBACK,
                "no_proxy": _LOOPBACK,
                **_trust(known),
            }


def printed(values: Mapping[str, str], form: Form) -> str:
    """The variables as lines of a shell, or as one JSON object. On Windows upper and lower case are one."""
    if form is Form.JSON:
        return json.dumps(dict(values), indent=2)
    if form is Form.SH:
        return "\n".join(f"export {name}={shlex.quote(value)}" for name, value in values.items())
    quoted = {name: value.replace("'", "''") for name, value in values.items() if name == name.upper()}
    return "\n".join(f"$env:{name} = '{value}'" for name, value in quoted.items())


def _trust(known: Mapping[str, Any]) -> dict[str, str]:
    bundle = known.get("caBundle")
    return {} if bundle is None else {"REQUESTS_CA_BUNDLE": str(Path(bundle))}
