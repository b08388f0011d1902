"""What an inspection finds."""

from __future__ import annotations

from dataclasses import dataclass, field

from modelyard.resources.models.model import SignatureSpec


class InspectionFailed(Exception):
    """The artifact can't be served; the message says why and what to do."""


@dataclass
class Findings:
    """What was found out about an artifact, while it is being looked at.

    Attributes:
        kind: SAVED_MODEL, TORCH_ARCHIVE, TORCHSCRIPT, TORCH_EXPORT, TORCH_WEIGHTS, ONNX or SKLEARN.
        path: the directory or file that would be loaded, relative to the artifact.
        framework_version: of the framework that wrote it.
        facts: what the format tells besides, by name.
        notes: sentences for a person.
    """

    kind: str
    path: str
    signatures: list[SignatureSpec] = field(default_factory=list[SignatureSpec])
    framework_version: str | None = None
    facts: dict[str, str] = field(default_factory=dict[str, str])
    notes: list[str] = field(default_factory=list[str])
