"""Where the platform is and who is calling.

The values come, each on its own, from the caller, from the environment, or from a platform on this machine, which keeps its credentials
sealed in its home and hands them out through `modelyard credentials`. This module is where the SDK reads the environment: the variables are
its documented contract.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from modelyard.sdk.errors import NotConfigured
from modelyard.wire import Wire

API_URL_VARIABLE = "MODELYARD_API_URL"
APP_KEY_VARIABLE = "MODELYARD_APP_KEY"
ACCESS_TOKEN_VARIABLE = "MODELYARD_ACCESS_TOKEN"  # noqa: S105 - the name of a variable, not a token
CA_FILE_VARIABLE = "MODELYARD_CA_FILE"
HOME_VARIABLE = "MODELYARD_HOME"
PASSWORD_VARIABLE = "MODELYARD_PASSWORD"  # noqa: S105 - the name of a variable, not a password
_READ_TIMEOUT_SECONDS = 60.0


class Credentials(Wire):
    """What `modelyard credentials --output json` prints."""

    console_url: str
    api_url: str
    https_url: str
    app_key: str
    access_token: str
    secret_key: str
    region: str
    tenant_id: str
    api_user_id: str
    object_store_url: str
    object_store_user: str
    object_store_password: str
    ca_file: str | None = None
    ca_bundle: str | None = None
    admin_user: str
    admin_password: str


@dataclass(frozen=True, slots=True)
class Connection:
    """Where to call and as whom.

    Attributes:
        api_url: the front door, without a trailing slash.
        app_key: which project.
        access_token: the bearer token.
        ca_file: certificate authorities to trust beside the system's; None for the system's alone.
        https_url: the front door's HTTPS side, where known: the host that `obs://` paths are written with.
    """

    api_url: str
    app_key: str
    access_token: str
    ca_file: Path | None = None
    https_url: str | None = None

    @classmethod
    def find(
        cls,
        *,
        api_url: str | None = None,
        app_key: str | None = None,
        access_token: str | None = None,
        ca_file: Path | str | None = None,
        home: Path | str | None = None,
        environment: Mapping[str, str] | None = None,
        read: Callable[[Path], Credentials | None] | None = None,
    ) -> Connection:
        """Put a connection together.

        A given value wins over the environment, the environment over the home's credentials. A `home` that is given, though, is meant: then
        the environment's platform is not asked. `read` gives a home's credentials, for callers that can do it without `modelyard credentials`.
        Raises `NotConfigured` with what is missing and how to give it.
        """
        variables = os.environ if environment is None else environment
        seen: Mapping[str, str] = {} if home is not None else variables
        url = api_url or seen.get(API_URL_VARIABLE)
        key = app_key or seen.get(APP_KEY_VARIABLE)
        token = access_token or seen.get(ACCESS_TOKEN_VARIABLE)
        ca = ca_file or seen.get(CA_FILE_VARIABLE)
        if url and key and token:
            return cls(url.rstrip("/"), key, token, _existing(ca))
        place = home_path(home, variables)
        stored = (read or read_credentials)(place)
        if stored is None:
            raise NotConfigured(_missing(url, key, token, place))
        if url and url.rstrip("/") not in {stored.api_url, stored.https_url} and not token:
            # The token of the local platform is nobody else's business.
            raise NotConfigured(f"give an access token for {url} (--token or {ACCESS_TOKEN_VARIABLE})")
        return cls(
            (url or stored.api_url).rstrip("/"),
            key or stored.app_key,
            token or stored.access_token,
            _existing(ca or stored.ca_file),
            https_url=stored.https_url,
        )


def home_path(home: Path | str | None = None, environment: Mapping[str, str] | None = None) -> Path:
    """The home of the local platform: the given one, else `MODELYARD_HOME`, else `~/.modelyard`."""
    variables = os.environ if environment is None else environment
    return Path(home or variables.get(HOME_VARIABLE) or "~/.modelyard").expanduser()


def password_variable() -> str | None:
    """The password of a person, where the environment has it."""
    return os.environ.get(PASSWORD_VARIABLE) or None


def has_token_variable() -> bool:
    """Whether the environment says as whom to call."""
    return bool(os.environ.get(ACCESS_TOKEN_VARIABLE))


def read_credentials(home: Path) -> Credentials | None:
    """The credentials of the platform in this home, from `modelyard credentials`; None where there is no such directory.

    Raises `NotConfigured` when they can't be read.
    """
    if not home.is_dir():
        return None
    # -P: a directory that happens to be called modelyard, where the caller stands, is not the platform.
    command = [sys.executable, "-P", "-m", "modelyard", "credentials", "--home", str(home), "--output", "json"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_READ_TIMEOUT_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotConfigured(f"`modelyard credentials` for {home} did not answer: {error}") from error
    if done.returncode != 0:
        words = done.stderr.strip().removeprefix("modelyard: ") or f"exit code {done.returncode}"
        raise NotConfigured(f"no credentials in {home}: {words}")
    try:
        return Credentials.model_validate_json(done.stdout)
    except ValidationError as error:
        raise NotConfigured(f"`modelyard credentials` for {home} is of another version than this SDK") from error


def _existing(ca_file: Path | str | None) -> Path | None:
    if not ca_file:
        return None
    path = Path(ca_file).expanduser()
    if not path.is_file():
        raise NotConfigured(f"the CA file {path} does not exist")
    return path


def _missing(url: str | None, key: str | None, token: str | None, home: Path) -> str:
    wanted = [
        variable
        for variable, value in ((API_URL_VARIABLE, url), (APP_KEY_VARIABLE, key), (ACCESS_TOKEN_VARIABLE, token))
        if not value
    ]
    return f"no platform in {home} (start one with `modelyard up`) and {', '.join(wanted)} not set"
