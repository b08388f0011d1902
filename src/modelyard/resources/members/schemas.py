"""Members on the wire."""

from __future__ import annotations

from pydantic import Field, field_validator

from modelyard.kit.names import name_fault
from modelyard.resources.projects.model import Role
from modelyard.resources.users.model import MIN_PASSWORD_CHARACTERS
from modelyard.wire import Header, Moment, Paging, Wire

MAX_PASSWORD_CHARACTERS = 1024
MAX_USER_NAME_CHARACTERS = 64


class MemberOut(Wire):
    """Somebody who may use the project."""

    user_id: str
    user_name: str
    role_code: Role
    created_datetime: Moment

    @property
    def id(self) -> str:
        """For programs that treat all resources alike."""
        return self.user_id

    @property
    def name(self) -> str:
        """For programs that treat all resources alike."""
        return self.user_name


class MemberCreate(Wire):
    """`POST /members`. `password` makes a user of this name where there is none yet; only admins may do that."""

    user_name: str
    role_code: Role = Role.MEMBER
    password: str | None = Field(
        default=None, min_length=MIN_PASSWORD_CHARACTERS, max_length=MAX_PASSWORD_CHARACTERS, repr=False
    )

    @field_validator("user_name")
    @classmethod
    def _check_name(cls, value: str) -> str:
        fault = name_fault(value, MAX_USER_NAME_CHARACTERS)
        if fault is not None:
            raise ValueError(fault)
        return value


class MemberOne(Wire):
    """Answer about one member."""

    header: Header = Header()
    member: MemberOut


class MemberList(Wire):
    """Answer of a list."""

    header: Header = Header()
    member_list: list[MemberOut]
    paging: Paging
