"""A request to the object store's door, taken apart: who calls, which account, container and object, which parameters.

Paths are taken from the raw bytes of the request line, because a name may have any character; they are decoded exactly once.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from urllib.parse import parse_qsl, unquote_to_bytes

from starlette.datastructures import Headers
from starlette.requests import Request

from modelyard.objectstore.access import Access, Grants, Principal, denial, may
from modelyard.objectstore.backends.local.model import Container
from modelyard.objectstore.backends.local.store import LocalStore
from modelyard.server.doors.objects_answers import HTML, PLAIN, Answer, Refusal, refuse

MAX_OBJECT_NAME_BYTES = 1024
MAX_CONTAINER_NAME_BYTES = 256
MAX_ACCOUNT_NAME_BYTES = 256
MAX_LISTING = 10_000
MAX_BULK_NAMES = 200
MAX_BULK_WRITE_BYTES = 8 << 20
_TRUE = {"true", "1", "yes", "on", "t", "y"}

Authorize = Callable[[str | None], Awaitable[Principal | None]]


@dataclass(frozen=True, slots=True)
class DoorSettings:
    """How the door behaves.

    Attributes:
        max_object_bytes: largest body of one PUT; larger objects are made of segments.
        implicit_system_grants: a container that never had an access list may be read and written by its tenant's system account.
    """

    max_object_bytes: int = 5 * 1024**3
    implicit_system_grants: bool = True


@dataclass(frozen=True, slots=True)
class DoorRequest:
    """One request. `account` is as in the path (`AUTH_…`); `container` and `name` are empty where the path ends before."""

    http: Request
    store: LocalStore
    settings: DoorSettings
    principal: Principal | None
    account: str
    container: str
    name: str
    query: Mapping[str, str]

    @property
    def method(self) -> str:
        """The HTTP method."""
        return self.http.method

    @property
    def headers(self) -> Headers:
        """The request's headers; values are Latin-1 texts of the bytes sent."""
        return self.http.headers

    @property
    def tenant(self) -> str:
        """The account without `AUTH_`; an account of another form has no tenant."""
        return self.account.removeprefix("AUTH_") if self.account.startswith("AUTH_") else ""

    @property
    def is_owner(self) -> bool:
        """Whether the caller may do everything in this account."""
        return self.principal is not None and self.principal.owns(self.tenant)

    def parameter(self, name: str) -> str:
        """A query parameter as text, empty where it is missing."""
        value = self.query.get(name, "").encode("latin-1")
        try:
            return value.decode()
        except UnicodeDecodeError:
            raise refuse(400, f'"{name}" parameter not valid UTF-8', content_type=PLAIN) from None

    def is_true(self, header: str) -> bool:
        """Whether a header says yes."""
        return self.headers.get(header, "").lower() in _TRUE

    def demand_owner(self) -> None:
        """Refuse everybody but the account's owner (and owners whose token is limited)."""
        principal = self.principal
        if principal is None:
            raise unauthorized(self.account)
        wanted = Access.READ if self.method in {"GET", "HEAD"} else Access.WRITE
        if not self.is_owner:
            what = f"Only the owner of {self.account} may do this; account '{principal.name}' is not."
            raise Refusal(Answer(403, [("Content-Type", "text/plain; charset=utf-8")], what.encode()))
        self.demand(wanted, Grants(self.tenant, self.container))

    def demand(self, wanted: Access, grants: Grants, *, is_listing: bool = False) -> None:
        """Refuse a caller who may not read or write the container's objects, and say which permission is missing."""
        is_allowed = may(
            self.principal,
            wanted,
            grants,
            is_listing=is_listing,
            referrer=self.headers.get("referer"),
            implicit_system_grants=self.settings.implicit_system_grants,
        )
        if is_allowed:
            return
        if self.principal is None:
            raise unauthorized(f"AUTH_{grants.tenant}")
        sentence = denial(self.principal, wanted, grants)
        raise Refusal(Answer(403, [("Content-Type", "text/plain; charset=utf-8")], sentence.encode()))

    def permit_reading(self, container: Container) -> None:
        """`demand` in the form that following manifests needs."""
        self.demand(Access.READ, container.grants)


def split_path(raw_path: bytes) -> tuple[str, str, str]:
    """`/v1/{account}/{container}/{object}` decoded; refuses what is not UTF-8, has a NUL, or is too long.

    Source of the texts: OpenStack Swift.
    """
    try:
        path = unquote_to_bytes(raw_path).decode()
    except UnicodeDecodeError:
        raise refuse(412, "Invalid UTF8 or contains NULL") from None
    if "\0" in path:
        raise refuse(412, "Invalid UTF8 or contains NULL")
    _, _, rest = path.lstrip("/").partition("/")
    account, _, below = rest.partition("/")
    container, _, name = below.partition("/")
    if not account or (name and not container):
        raise refuse(412, "Bad URL")
    return account, container, name


def check_names(account: str, container: str, name: str) -> None:
    """Refuse names that are too long."""
    if len(account.encode()) > MAX_ACCOUNT_NAME_BYTES:
        raise refuse(400, f"Account name length of {len(account.encode())} longer than {MAX_ACCOUNT_NAME_BYTES}")
    if len(container.encode()) > MAX_CONTAINER_NAME_BYTES:
        raise refuse(400, f"Container name length of {len(container.encode())} longer than {MAX_CONTAINER_NAME_BYTES}")
    check_object_name(name)


def check_object_name(name: str) -> None:
    """Refuse an object's name that is too long."""
    size = len(name.encode())
    if size > MAX_OBJECT_NAME_BYTES:
        raise refuse(400, f"Object name length of {size} longer than {MAX_OBJECT_NAME_BYTES}", content_type=PLAIN)


def parse_query(raw: bytes) -> dict[str, str]:
    """Query parameters; values are Latin-1 texts of the bytes sent. The last of several wins."""
    return dict(parse_qsl(raw.decode("latin-1"), keep_blank_values=True, encoding="latin-1"))


def unauthorized(account: str) -> Refusal:
    """401 with Swift's challenge."""
    answer = refuse(401).answer
    answer.headers.append(("Www-Authenticate", f'Swift realm="{account}"'))
    return Refusal(answer)


def method_not_allowed(allowed: str) -> Answer:
    """405 with the methods that there are."""
    answer = refuse(405).answer
    answer.headers.append(("Allow", allowed))
    return answer


def options(allowed: str) -> Answer:
    """The answer to OPTIONS."""
    return Answer(200, [("Content-Type", HTML), ("Allow", allowed)])
