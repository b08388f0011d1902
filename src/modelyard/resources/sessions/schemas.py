"""Sign-ins and one-time codes on the wire."""

from __future__ import annotations

from pydantic import Field

from modelyard.resources.sessions.model import SignedIn
from modelyard.wire import Header, Moment, Paging, Wire


class SessionOut(Wire):
    """Somebody's sign-in in a browser."""

    session_id: str
    user_id: str
    user_name: str
    address: str
    user_agent: str
    created_datetime: Moment
    last_seen_datetime: Moment
    expires_datetime: Moment

    @staticmethod
    def of(found: SignedIn) -> SessionOut:
        """The wire form."""
        return SessionOut(
            session_id=found.id,
            user_id=found.user_id,
            user_name=found.user_name,
            address=found.address,
            user_agent=found.user_agent,
            created_datetime=found.created_at,
            last_seen_datetime=found.seen_at,
            expires_datetime=found.expires_at,
        )


class SessionList(Wire):
    """Answer of a list."""

    header: Header = Header()
    session_list: list[SessionOut]
    paging: Paging


class AccessCodeCreate(Wire):
    """What a browser is to be let into: a thing that runs, and a path within it."""

    kind: str = Field(max_length=32, description="`notebook` or `tensorboard`.")
    id: str = Field(max_length=64)
    path: str = "/"


class AccessCodeOut(Wire):
    """An address that lets one browser in, once. It is a secret until it is used or has expired."""

    url: str
    expires_datetime: Moment


class AccessCodeOne(Wire):
    """Answer about one code."""

    header: Header = Header()
    access_code: AccessCodeOut
