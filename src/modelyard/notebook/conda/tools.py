"""Which tool cares for an environment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from modelyard.notebook.conda import channels, virtual
from modelyard.notebook.conda.environments import Environment
from modelyard.notebook.conda.problems import Problem


class Tool(Protocol):
    """What makes and changes environments."""

    def create(self, environment: Environment, specs: Sequence[str]) -> None: ...

    def install(self, environment: Environment, specs: Sequence[str]) -> None: ...

    def remove(self, environment: Environment, names: Sequence[str]) -> None: ...


def tool_for(given: Sequence[str], environment: Environment | None = None) -> Tool:
    """Who cares for this environment, or makes a new one from what is reachable."""
    if environment is not None and not environment.is_of_channels:
        return virtual.Virtual()
    reachable = channels.reachable(given)
    if reachable:
        return channels.Channels(reachable)
    if given:
        raise Problem(f"no channel answers: {', '.join(given)}")
    if environment is not None:
        raise Problem("its packages come from conda channels, and none answers; name one with --channel")
    print("No conda channel is reachable; the environment is made by uv, with packages from the Python index.")
    return virtual.Virtual()
