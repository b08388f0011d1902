"""What a snapshot is."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel, ConfigDict


class Snapshot(BaseModel):
    """A source as it was.

    Attributes:
        digest: SHA-256 over `{name}\\0{SHA-256 of the content}\\0` of all files in the order of their names (hex).
        requirements_digest: SHA-256 of the requirements.txt, where there is one.
        source_uri: where it was read.
        directory: where its files are on the platform's machine, never to be changed.
    """

    model_config = ConfigDict(frozen=True)

    id: str
    project_id: str
    digest: str
    requirements_digest: str | None
    source_uri: str
    file_count: int
    size_bytes: int
    created_at: datetime
    directory: str
