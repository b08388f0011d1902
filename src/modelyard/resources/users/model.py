"""What a user is, free of any framework."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

MIN_PASSWORD_CHARACTERS = 12


@dataclass(frozen=True, slots=True)
class User:
    """Someone who logs in. An admin looks after the platform.

    Attributes:
        password_changed_at: sign-ins from before then are over.
    """

    id: str
    name: str
    is_admin: bool
    password_changed_at: datetime
