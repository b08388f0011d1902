"""Environments of packages from conda channels, by py-rattler: a solver, and an installer that links packages into a directory."""

from __future__ import annotations

import asyncio
import contextlib
import glob
from collections.abc import Sequence
from importlib import import_module
from typing import Any, NamedTuple

from modelyard.notebook.conda import history
from modelyard.notebook.conda.environments import Environment
from modelyard.notebook.conda.history import name_of
from modelyard.notebook.conda.problems import Problem


class Package(NamedTuple):
    """One that is installed."""

    name: str
    version: str
    build: str
    channel: str
    depends: tuple[str, ...]


class Linked:
    """Makes and changes them, from the channels at these URLs."""

    def __init__(self, urls: Sequence[str]) -> None:
        self._urls = list(urls)

    def create(self, environment: Environment, specs: Sequence[str]) -> None:
        """A new one; with ipykernel where the channels have it, so that it is a kernel at once. Raises `Problem`."""
        if "python" in map(name_of, specs) and "ipykernel" not in map(name_of, specs):
            with contextlib.suppress(Problem):
                self._put(environment, [*specs, "ipykernel"])
                history.write(environment.path, specs)
                return
        self._put(environment, specs)
        history.write(environment.path, specs)

    def install(self, environment: Environment, specs: Sequence[str]) -> None:
        """More packages; those that are there stay as they are where that is possible. Raises `Problem`."""
        new = set(map(name_of, specs))
        self._put(environment, [*(old for old in _roots(environment) if name_of(old) not in new), *specs])
        history.write(environment.path, specs)

    def update(self, environment: Environment, names: Sequence[str]) -> None:
        """These (all that were asked for, if none is named) as new as the rest allows. Raises `Problem`."""
        roots = _roots(environment)
        wanted = set(map(name_of, names or roots))
        _demand_installed(environment, [name_of(name) for name in names])
        kept = [spec for spec in roots if name_of(spec) not in wanted]
        self._put(environment, [*kept, *(names or map(name_of, roots))], loose=wanted)

    def remove(self, environment: Environment, names: Sequence[str]) -> None:
        """Fewer: what needs them goes too, and what nobody needs any more. Raises `Problem`."""
        gone = {name.lower() for name in names}
        _demand_installed(environment, gone)
        packages = installed(environment)
        while more := {package.name for package in packages if gone & {name_of(d) for d in package.depends}} - gone:
            gone |= more
        self._put(environment, [spec for spec in _roots(environment) if name_of(spec) not in gone], loose=gone)
        history.write(environment.path, taken_away=sorted(gone))

    def copy(self, source: Environment, target: Environment) -> None:
        """The same packages in another environment. Raises `Problem`."""
        rattler: Any = import_module("rattler")
        _run(rattler.install(_records(rattler, source), target_prefix=target.path, show_progress=False))
        history.write(target.path, history.requested(source.path))

    def _put(self, environment: Environment, specs: Sequence[str], loose: Sequence[str] | set[str] = ()) -> None:
        _run(self._solve_and_install(environment, list(specs), set(loose)), self._urls)

    async def _solve_and_install(self, environment: Environment, specs: list[str], loose: set[str]) -> None:
        """`loose` packages may become others than they are."""
        rattler: Any = import_module("rattler")
        present = _records(rattler, environment)
        print("Solving environment …", flush=True)
        records: list[Any] = []
        if specs:
            records = await rattler.solve(
                sources=[rattler.Channel(url) for url in self._urls],
                specs=[rattler.MatchSpec(spec) for spec in specs],
                virtual_packages=rattler.VirtualPackage.detect(),
                locked_packages=[record for record in present if record.name.normalized not in loose],
            )
        before = {(record.name.normalized, str(record.version)) for record in present}
        after = {(record.name.normalized, str(record.version)) for record in records}
        for sign, changes in (("-", before - after), ("+", after - before)):
            for name, version in sorted(changes):
                print(f"  {sign} {name} {version}")
        await rattler.install(records, target_prefix=environment.path, installed_packages=present, show_progress=False)


def installed(environment: Environment) -> list[Package]:
    """What is in an environment of channels, by name."""
    rattler: Any = import_module("rattler")
    found = [
        Package(
            record.name.normalized,
            str(record.version),
            str(record.build),
            str(record.channel or ""),
            tuple(str(spec) for spec in record.depends),
        )
        for record in _records(rattler, environment)
    ]
    return sorted(found)


def _run(work: Any, urls: Sequence[str] = ()) -> None:
    try:
        asyncio.run(work)
    except Exception as error:  # of many kinds, none of which is the user's to see as a traceback
        where = f" (in {', '.join(urls)})" if urls else ""
        raise Problem(f"{' '.join(str(error).split()).rstrip('.')}{where}") from None


def _records(rattler: Any, environment: Environment) -> list[Any]:
    paths = sorted(glob.glob(f"{glob.escape(environment.path)}/conda-meta/*.json"))
    return [rattler.PrefixRecord.from_path(path) for path in paths]


def _roots(environment: Environment) -> list[str]:
    """What was asked for; where nobody has noted that, everything that nothing else needs."""
    asked = history.requested(environment.path)
    packages = installed(environment)
    if asked:
        names = {package.name for package in packages}
        return [spec for spec in asked if name_of(spec) in names]
    needed = {name_of(spec) for package in packages for spec in package.depends}
    return [package.name for package in packages if package.name not in needed]


def _demand_installed(environment: Environment, names: Sequence[str] | set[str]) -> None:
    present = {package.name for package in installed(environment)}
    missing = sorted(set(names) - present)
    if missing:
        raise Problem(f"not installed in {environment.path}: {', '.join(missing)}; 'conda list' shows what is")
