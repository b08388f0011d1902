"""Environments from conda channels, by py-rattler: a solver, and an installer that links packages into a directory."""

from __future__ import annotations

import asyncio
import contextlib
import glob
import os
import urllib.request
from collections.abc import Sequence
from importlib import import_module
from typing import Any, cast

from modelyard.notebook.conda.environments import Environment
from modelyard.notebook.conda.problems import Problem

_DEFAULT = ("conda-forge",)
_HOST = "https://conda.anaconda.org"
_LOOK_SECONDS = 10.0
_INDEXES = ("repodata.json.zst", "repodata.json")


class Channels:
    """Makes and changes them, from these channels."""

    def __init__(self, urls: Sequence[str]) -> None:
        self._urls = list(urls)

    def create(self, environment: Environment, specs: Sequence[str]) -> None:
        """A new one; with ipykernel where the channels have it, so that it is a kernel at once. Raises `Problem`."""
        wanted = [*specs]
        has_python = any(spec.strip().lower().startswith("python") for spec in wanted)
        with contextlib.suppress(Problem):
            self._put(environment, [*wanted, *(["ipykernel"] if has_python else [])])
            return
        self._put(environment, wanted)

    def install(self, environment: Environment, specs: Sequence[str]) -> None:
        """More packages; those that are there stay as they are where that is possible. Raises `Problem`."""
        self._put(environment, [*_requested(environment), *specs])

    def remove(self, environment: Environment, names: Sequence[str]) -> None:
        """Fewer, with what only they needed. Raises `Problem`."""
        kept = [spec for spec in _requested(environment) if spec.split()[0].split("=")[0] not in names]
        self._put(environment, kept)

    def _put(self, environment: Environment, specs: Sequence[str]) -> None:
        rattler: Any = import_module("rattler")
        try:
            asyncio.run(self._solve_and_install(rattler, environment, specs))
        except Exception as error:  # of many kinds, none of which is the user's to see as a traceback
            raise Problem(f"{' '.join(str(error).split())}") from None

    async def _solve_and_install(self, rattler: Any, environment: Environment, specs: Sequence[str]) -> None:
        installed = _records(rattler, environment)
        print("Solving environment …", flush=True)
        records = await rattler.solve(
            sources=[rattler.Channel(url) for url in self._urls],
            specs=list(specs),
            platforms=[rattler.Platform.current(), rattler.Platform("noarch")],
            virtual_packages=rattler.VirtualPackage.detect(),
            locked_packages=installed,
        )
        for record in records:
            print(f"  {record.name.normalized} {record.version}")
        await rattler.install(
            records,
            target_prefix=environment.path,
            installed_packages=installed,
            requested_specs=[rattler.MatchSpec(spec) for spec in specs],
            show_progress=False,
        )


def reachable(given: Sequence[str]) -> list[str]:
    """URLs of the channels that answer: those given first, then those that are configured, then conda-forge."""
    urls = [_url(channel) for channel in (*given, *_configured())]
    return [url for url in dict.fromkeys(urls) if _answers(url)]


def _configured() -> list[str]:
    """`CONDA_CHANNELS` (with commas), else `channels:` of a `.condarc` in the home or on the data storage."""
    named = os.environ.get("CONDA_CHANNELS", "")
    if named:
        return [part.strip() for part in named.split(",") if part.strip()]
    home = os.path.expanduser("~")
    for path in (f"{home}/.condarc", f"{home}/easymaker/.condarc"):
        with contextlib.suppress(OSError, ImportError, AttributeError, TypeError), open(path, encoding="utf-8") as file:
            content: Any = import_module("yaml").safe_load(file)
            return [str(item) for item in cast("list[Any]", content.get("channels") or [])]
    return [*_DEFAULT]


def _url(channel: str) -> str:
    if "://" in channel:
        return channel.rstrip("/")
    return f"file://{os.path.abspath(channel)}" if channel.startswith(("/", ".")) else f"{_HOST}/{channel}"


def _answers(url: str) -> bool:
    for index in _INDEXES:
        request = urllib.request.Request(f"{url}/noarch/{index}", method="HEAD")  # noqa: S310 - users name their channels
        with contextlib.suppress(OSError, ValueError):
            if url.startswith("file://"):
                if os.path.exists(f"{url.removeprefix('file://')}/noarch/{index}"):
                    return True
                continue
            with urllib.request.urlopen(request, timeout=_LOOK_SECONDS):  # noqa: S310 - the same
                return True
    return False


def _records(rattler: Any, environment: Environment) -> list[Any]:
    paths = sorted(glob.glob(f"{glob.escape(environment.path)}/conda-meta/*.json"))
    return [rattler.PrefixRecord.from_path(path) for path in paths]


def _requested(environment: Environment) -> list[str]:
    """What was asked for by name, of all that is installed."""
    rattler: Any = import_module("rattler")
    found: list[str] = []
    for record in _records(rattler, environment):
        found += [str(spec) for spec in cast("list[Any]", record.requested_specs or [])]
    return list(dict.fromkeys(found))
