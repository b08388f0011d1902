"""What is seen of an image's environment."""

from __future__ import annotations

from dataclasses import dataclass

from modelyard.resources.images.lifecycle import EnvironmentState


@dataclass(frozen=True, slots=True)
class EnvironmentView:
    """Whether an environment is there, and if not, how far it is or why it can't be."""

    digest: str
    state: EnvironmentState
    message: str | None
