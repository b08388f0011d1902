"""Which tool cares for an environment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from modelyard.notebook.conda import channels, linked, virtual
from modelyard.notebook.conda.environments import Environment
from modelyard.notebook.conda.problems import Problem


class Tool(Protocol):
    """What makes and changes environments."""

    def create(self, environment: Environment, specs: Sequence[str]) -> None: ...

    def install(self, environment: Environment, specs: Sequence[str]) -> None: ...

    def update(self, environment: Environment, names: Sequence[str]) -> None: ...

    def remove(self, environment: Environment, names: Sequence[str]) -> None: ...


class Sources(NamedTuple):
    """Where to look: channels of the command line, channels of a file, and whether no others count."""

    given: Sequence[str] = ()
    described: Sequence[str] = ()
    only: bool = False


def tool_for_new(sources: Sources) -> Tool:
    """Who makes an environment, from what is reachable. Raises `Problem`."""
    urls = channels.reachable(sources.given, sources.described, only=sources.only)
    if urls:
        return linked.Linked(urls)
    print("No conda channel is reachable; the environment is made by uv, with packages from the Python index.")
    return virtual.Virtual()


def tool_of(environment: Environment, sources: Sources) -> Tool:
    """Who cares for one that is there. Raises `Problem`."""
    if not environment.is_of_channels:
        if sources.given:
            print(f"{environment.shown} takes its packages from the Python index; --channel has no part in it.")
        return virtual.Virtual()
    urls = channels.reachable(sources.given, sources.described, only=sources.only)
    if not urls:
        raise Problem(
            f"the packages of {environment.shown} come from conda channels, and none answers; name one with --channel"
        )
    return linked.Linked(urls)
