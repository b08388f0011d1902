"""What the SDK raises. Every error is a `ModelyardError` whose text is a sentence for a person.

The module stands on the standard library alone, so that the command line can name the errors before it has loaded an HTTP client.
"""

from __future__ import annotations

from collections.abc import Sequence

from modelyard.kit.errors import Blocker, Fault


class ModelyardError(Exception):
    """The family of all errors of the SDK."""


class NotConfigured(ModelyardError):
    """The client doesn't know where the platform is or has no credential for it."""


class ConnectionFailed(ModelyardError):
    """The platform can't be reached, or the connection broke and trying again didn't help.

    Attributes:
        url: the address that was called.
    """

    def __init__(self, url: str, why: str) -> None:
        super().__init__(f"can't reach {url}: {why}")
        self.url = url


class ClientClosed(ModelyardError):
    """The client was closed, perhaps while this call was going on."""

    def __init__(self) -> None:
        super().__init__("the client is closed")


class UnexpectedAnswer(ModelyardError):
    """Something answered that doesn't speak the platform's API (another server, a proxy, another version)."""


class TransferFailed(ModelyardError):
    """A file could not be carried to or from the object store whole."""


class ManifestInvalid(ModelyardError):
    """A file of resources can't be used as it is. `faults` name every place in it that is wrong."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        super().__init__("; ".join(f"{fault.field}: {fault.message}" for fault in faults))
        self.faults = tuple(faults)


class UnknownName(ModelyardError):
    """No resource has this name. `near` holds names that look like it."""

    def __init__(self, kind: str, name: str, near: Sequence[str] = ()) -> None:
        hint = f"; did you mean {' or '.join(repr(item) for item in near)}?" if near else ""
        super().__init__(f"there is no {kind} '{name}'{hint}")
        self.kind = kind
        self.name = name
        self.near = tuple(near)


class AmbiguousName(ModelyardError):
    """Several resources have this name: say which by its id."""

    def __init__(self, kind: str, name: str, ids: Sequence[str]) -> None:
        super().__init__(f"{len(ids)} {kind}s are named '{name}'; use an id: {', '.join(ids)}")
        self.ids = tuple(ids)


class ApiError(ModelyardError):
    """The platform refused the call, or failed.

    Attributes:
        status: the HTTP status.
        code: the envelope's `resultCode` (status times a thousand plus a number that stays the same for ever).
        message: the platform's sentence.
        faults: the fields that are wrong, where the error is about fields.
        blockers: what stands in the way of a deletion: kind, id and name of each.
        request_id: what to quote when asking the platform's operator, where the answer had one.
    """

    def __init__(
        self,
        status: int,
        code: int,
        message: str,
        *,
        faults: Sequence[Fault] = (),
        blockers: Sequence[Blocker] = (),
        request_id: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.faults = tuple(faults)
        self.blockers = tuple(blockers)
        self.request_id = request_id


class BadRequest(ApiError):
    """The request has wrong values (400, 412, 422)."""


class Unauthenticated(ApiError):
    """The token is missing, wrong or expired (401)."""


class PermissionDenied(ApiError):
    """The caller may not do this (403)."""


class NotFound(ApiError):
    """There is no such thing, or none that the caller may see (404)."""


class Conflict(ApiError):
    """The request contradicts the state that something is in (409)."""


class TooLarge(ApiError):
    """The body is larger than allowed (413)."""


class Overloaded(ApiError):
    """Too many requests at once (429), also after trying again."""


class StoreFull(ApiError):
    """The object store has no room (507)."""


class ServerFailed(ApiError):
    """The platform failed (5xx), also after trying again."""


class WaitFailed(ModelyardError):
    """What was waited for ended in a state that is not the wanted one.

    Attributes:
        kind, id, name: which resource.
        state: the state that it ended in.
        reason: a stable word, where there is one.
        message: the platform's sentence, where there is one.
        last_log_lines: the last lines of its output, oldest first.
    """

    def __init__(
        self,
        kind: str,
        id: str,
        name: str,
        state: str,
        *,
        reason: str | None = None,
        message: str | None = None,
        last_log_lines: Sequence[str] = (),
    ) -> None:
        why = message or reason
        super().__init__(f"{kind} '{name}' ended in {state}" + (f": {why}" if why else ""))
        self.kind = kind
        self.id = id
        self.name = name
        self.state = state
        self.reason = reason
        self.message = message
        self.last_log_lines = tuple(last_log_lines)


class WaitTimedOut(ModelyardError):
    """The time given to a wait is over; the work itself goes on."""

    def __init__(self, kind: str, id: str, name: str, state: str, timeout_seconds: float) -> None:
        super().__init__(f"{kind} '{name}' is still {state} after {timeout_seconds:g} s")
        self.kind = kind
        self.id = id
        self.name = name
        self.state = state


_CLASS_OF_STATUS: dict[int, type[ApiError]] = {
    400: BadRequest,
    401: Unauthenticated,
    403: PermissionDenied,
    404: NotFound,
    409: Conflict,
    412: BadRequest,
    413: TooLarge,
    422: BadRequest,
    429: Overloaded,
    507: StoreFull,
}


def api_error(
    status: int,
    code: int,
    message: str,
    *,
    faults: Sequence[Fault] = (),
    blockers: Sequence[Blocker] = (),
    request_id: str | None = None,
) -> ApiError:
    """The error class of an HTTP status, filled in."""
    chosen = _CLASS_OF_STATUS.get(status, ServerFailed if status >= 500 else ApiError)
    return chosen(status, code, message, faults=faults, blockers=blockers, request_id=request_id)
