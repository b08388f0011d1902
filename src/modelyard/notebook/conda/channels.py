"""Which conda channels there are, and which of them answer."""

from __future__ import annotations

import os
import urllib.error
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPException
from urllib.parse import quote, unquote

from modelyard.notebook.conda import configuration
from modelyard.notebook.conda.problems import Problem

_HOSTS = {"defaults": "https://repo.anaconda.com/pkgs/main", "nodefaults": ""}
_HOST = "https://conda.anaconda.org"
_LOOK_SECONDS = 10.0
_INDEXES = ("repodata_shards.msgpack.zst", "repodata.json.zst", "repodata.json")


def reachable(given: Sequence[str], described: Sequence[str] = (), *, only: bool = False) -> list[str]:
    """URLs of the channels that answer: those given, then those of a file, then those that are configured, else conda-forge.

    Raises `Problem` where one that was given does not answer: what was asked for by name is not left out in silence.
    """
    own = _urls(given)
    others = [url for url in _urls([*described, *(() if only else _configured())]) if url not in own]
    urls = [*own, *others]
    if not urls:
        return []
    with ThreadPoolExecutor(len(urls)) as looks:
        faults = dict(zip(urls, looks.map(_fault, urls), strict=True))
    missing = [f"{url} ({faults[url]})" for url in own if faults[url]]
    if missing:
        raise Problem(
            f"no channel answers at {', '.join(missing)}. Look at the address; it needs noarch/repodata.json."
        )
    found = [url for url in urls if not faults[url]]
    if found:
        for url in urls:
            if faults[url]:
                print(f"The channel {url} is left out: {faults[url]}.")
    return found


def _configured() -> list[str]:
    """`CONDA_CHANNELS` (with commas), else the `channels:` of a `.condarc`, else conda-forge."""
    named = os.environ.get("CONDA_CHANNELS", "")
    if named:
        return [part.strip() for part in named.split(",") if part.strip()]
    return configuration.channels() or [configuration.DEFAULT]


def _urls(channels: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(filter(None, map(_url, channels))))


def _url(channel: str) -> str:
    if "://" in channel:
        return channel.rstrip("/")
    if channel.startswith(("/", ".", "~")):
        return f"file://{quote(os.path.abspath(os.path.expanduser(channel)))}"
    return _HOSTS.get(channel, f"{_HOST}/{channel}")


def _fault(url: str) -> str:
    """Why a channel can't be used; empty for one that can."""
    if url.startswith("file://"):
        place = unquote(url.removeprefix("file://"))
        if not os.path.isdir(place):
            return "there is no such directory"
        return "" if any(os.path.exists(f"{place}/noarch/{index}") for index in _INDEXES) else "it has no index"
    fault = ""
    for index in reversed(_INDEXES):
        try:
            request = urllib.request.Request(f"{url}/noarch/{index}", method="HEAD")  # noqa: S310 - users name their channels
            with urllib.request.urlopen(request, timeout=_LOOK_SECONDS):  # noqa: S310 - the same
                return ""
        except urllib.error.HTTPError as error:
            fault = f"status {error.code}"
        except (OSError, ValueError, HTTPException) as error:
            return f"{getattr(error, 'reason', error)}"
    return fault
