"""What a user is, free of any framework."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class User:
    """Someone who logs in. An admin sees every project."""

    id: str
    name: str
    is_admin: bool
