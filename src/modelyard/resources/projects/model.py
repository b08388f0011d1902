"""What a project is, and who may be calling, free of any framework."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from modelyard.kit.ids import IdempotencyKey


@dataclass(frozen=True, slots=True)
class Project:
    """The boundary of everything that belongs together.

    Attributes:
        app_key: names the project in every path of the REST API.
        tenant_id: names its account in the object store (`AUTH_{tenant_id}`).
        api_user_id: the system account that the platform reads and writes objects as; users grant it access to their containers.
        store_user: the user's own account in the object store.
    """

    id: str
    name: str
    app_key: str
    tenant_id: str
    api_user_id: str
    store_user: str


class Role(StrEnum):
    """What a member may do: an owner looks after the members as well."""

    OWNER = "OWNER"
    MEMBER = "MEMBER"


@dataclass(frozen=True, slots=True)
class Member:
    """A user who may use a project, and since when."""

    user_id: str
    role: Role
    created_at: datetime


class TokenKind(StrEnum):
    """How a caller has shown who they are."""

    ACCESS = "access"
    SECRET = "secret"  # noqa: S105  # the name of a kind, not a password
    WORKLOAD = "workload"


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls, and on which project. `actor` is what events record.

    Attributes:
        credential: the digest of the access token or secret key that opened the door; None for a workload's token.
        user_id: whose it is; None for the project's own credentials.
    """

    project: Project
    actor: str
    kind: TokenKind
    workload_id: str | None = None
    idempotency_key: IdempotencyKey | None = None
    credential: str | None = None
    user_id: str | None = None
