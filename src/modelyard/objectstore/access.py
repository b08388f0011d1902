"""Who may do what in the object store: callers, container access lists, and the decision.

Pure: the door finds out who calls and what the container's lists say; this decides and words the refusal. The grammar of the lists is
that of Swift's containers (`X-Container-Read`, `X-Container-Write`), with grants in Keystone's form `{tenant}:{user}`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import urlsplit

READ_SCOPE = "objects:read"
WRITE_SCOPE = "objects:write"


class Access(StrEnum):
    """What a caller wants to do with a container's objects."""

    READ = "read"
    WRITE = "write"


@dataclass(frozen=True, slots=True)
class Principal:
    """A caller that has shown who it is.

    Attributes:
        tenant_id: the tenant that the caller belongs to.
        user_id: inside the tenant; a grant `{tenant_id}:{user_id}` names this caller.
        project_id: where the caller works; None for callers that are not bound to one.
        is_system_account: the platform's own account of the tenant, under which workloads read and write.
        scopes: if not None, the caller may only do what is in it (`objects:read`, `objects:write`), whatever lists say.
    """

    tenant_id: str
    user_id: str
    project_id: str | None = None
    is_system_account: bool = False
    scopes: frozenset[str] | None = None

    @property
    def name(self) -> str:
        """The form that grants have."""
        return f"{self.tenant_id}:{self.user_id}"

    def owns(self, tenant: str) -> bool:
        """Whether the caller may do everything in the tenant's account."""
        return self.tenant_id == tenant and not self.is_system_account


@dataclass(frozen=True, slots=True)
class Grants:
    """The access lists of one container. `is_set`: somebody has set or removed a list at some time, so only the lists count."""

    tenant: str
    container: str
    read: str | None = None
    write: str | None = None
    is_set: bool = False


class BadAccessList(ValueError):
    """The text is no access list; the message is Swift's."""


def clean_access_list(header: str, value: str) -> str:
    """An access list in its stored form: parts trimmed, referrers written `.r:`. Raises `BadAccessList`.

    Source: the container ACL format of OpenStack Swift.
    """
    cleaned: list[str] = []
    for raw in value.split(","):
        part = raw.strip()
        if not part:
            continue
        first, separator, second = (piece.strip() for piece in part.partition(":"))
        if not separator or not first.startswith("."):
            cleaned.append(part)
            continue
        if first not in {".r", ".ref", ".referer", ".referrer"}:
            raise BadAccessList(f"Unknown designator {first!r} in ACL: {part!r}")
        if "write" in header.lower():
            raise BadAccessList(f"Referrers not allowed in write ACL: {part!r}")
        is_negated = second.startswith("-")
        host = second.removeprefix("-").strip()
        if host.startswith("*") and host != "*":
            host = host[1:].strip()
        if not host or host == ".":
            raise BadAccessList(f"No host/domain value after referrer designation in ACL: {part!r}")
        cleaned.append(f".r:{'-' if is_negated else ''}{host}")
    return ",".join(cleaned)


def may(
    principal: Principal | None,
    wanted: Access,
    grants: Grants,
    *,
    is_listing: bool = False,
    referrer: str | None = None,
    implicit_system_grants: bool = True,
) -> bool:
    """Whether the caller may read or write objects of the container.

    `is_listing` asks for the names in it, which a referrer grant gives only together with `.rlistings`.
    """
    if principal is not None:
        if not _is_in_scope(principal, wanted):
            return False
        if principal.owns(grants.tenant):
            return True
        is_own_system = principal.is_system_account and principal.tenant_id == grants.tenant
        if is_own_system and implicit_system_grants and not grants.is_set:
            return True
    parts = _parts(grants.read if wanted is Access.READ else grants.write)
    if principal is not None and any(_names(part, principal) for part in parts):
        return True
    if wanted is Access.WRITE or not _admits_referrer(referrer, parts):
        return False
    return not is_listing or ".rlistings" in parts


def denial(principal: Principal | None, wanted: Access, grants: Grants) -> str:
    """The sentence for a refused caller: which permission is missing, and what grants it."""
    who = f"account '{principal.name}'" if principal else "a caller without a token"
    if principal is not None and not _is_in_scope(principal, wanted):
        return f"The token of {who} does not include the scope 'objects:{wanted}'."
    grant = principal.name if principal else ".r:*"
    header = f"X-Container-{wanted.value.capitalize()}"
    return (
        f"The {wanted} permission on container '{grants.container}' of AUTH_{grants.tenant} is missing for {who}. "
        f"The container's owner can grant it by adding '{grant}' to {header}."
    )


def _is_in_scope(principal: Principal, wanted: Access) -> bool:
    needed = READ_SCOPE if wanted is Access.READ else WRITE_SCOPE
    return principal.scopes is None or needed in principal.scopes


def _parts(access_list: str | None) -> Sequence[str]:
    return access_list.split(",") if access_list else ()


def _names(part: str, principal: Principal) -> bool:
    if part.startswith("."):
        return False
    tenant, separator, user = part.partition(":")
    if not separator:
        return tenant == principal.tenant_id
    return tenant in {"*", principal.tenant_id} and user in {"*", principal.user_id}


def _admits_referrer(referrer: str | None, parts: Sequence[str]) -> bool:
    host = urlsplit(referrer or "").hostname or "unknown"
    is_admitted = False
    for part in parts:
        if not part.startswith(".r:"):
            continue
        pattern = part.removeprefix(".r:")
        is_negated = pattern.startswith("-")
        pattern = pattern.removeprefix("-")
        if pattern == "*" or pattern == host or (pattern.startswith(".") and host.endswith(pattern)):
            is_admitted = not is_negated
    return is_admitted
