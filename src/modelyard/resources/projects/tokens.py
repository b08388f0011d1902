"""Signed tokens that say what they are good for, so that checking one needs no database.

They are JSON Web Tokens (RFC 7519) signed with HMAC-SHA-256 by a key that only the platform has. Two kinds exist: *workload* tokens are given to
an instance and act as the project's system account, as long as their workload lives (`Projects.grant_of` looks); *object* tokens are what a
Keystone-style login to the object store answers.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import jwt

from modelyard.kit.clock import Clock, utc_now

_ALGORITHM = "HS256"


@dataclass(frozen=True, slots=True)
class Grant:
    """What a signed token is good for.

    Attributes:
        use: `workload` opens the project's REST API and object store as its system account; `object` the object store as its user.
        subject: the workload's id, or the name of the user in the object store.
        expires_at: None for one whose end is that of its workload alone.
    """

    use: Literal["workload", "object"]
    project_id: str
    tenant_id: str
    subject: str
    expires_at: datetime | None


class TokenSigner:
    """Signs and checks grants with one secret key of at least 32 bytes."""

    def __init__(self, key: bytes, clock: Clock = utc_now) -> None:
        self._key = key
        self._clock = clock

    def sign(
        self,
        use: Literal["workload", "object"],
        *,
        project_id: str,
        tenant_id: str,
        subject: str,
        expires_at: datetime | None = None,
    ) -> str:
        """A token for the grant. Moments are in whole seconds in it."""
        claims: dict[str, Any] = {"use": use, "prj": project_id, "ten": tenant_id, "sub": subject}
        if expires_at is not None:
            claims["exp"] = int(expires_at.timestamp())
        return jwt.encode(claims, self._key, algorithm=_ALGORITHM)

    def read(self, token: str) -> Grant | None:
        """The grant, if the token is ours and has not expired."""
        try:
            claims = jwt.decode(
                token,
                self._key,
                algorithms=[_ALGORITHM],
                options={"require": ["use", "prj", "ten", "sub"], "verify_exp": False},
            )
        except jwt.InvalidTokenError:
            return None
        now, expires_at = self._clock(), None
        if "exp" in claims:
            expires_at = datetime.fromtimestamp(int(claims["exp"]), tz=now.tzinfo)
        if (expires_at is not None and expires_at <= now) or claims["use"] not in ("workload", "object"):
            return None
        return Grant(claims["use"], claims["prj"], claims["ten"], claims["sub"], expires_at)
