"""What can go wrong, as sentences with the HTTP status that each maps to.

A `Refusal` ends one request; a `LoadFailed` ends the process. Both carry one sentence for the person who called or who made
the model. Everything else that is raised while a request is answered is a fault of the model and becomes `ModelFailed`.
"""

from __future__ import annotations

from collections.abc import Sequence

EXIT_LOAD_FAILED = 3
"""The exit code of a server whose model or address can't be had."""


class Refusal(Exception):
    """A request that gets no prediction. `headers` are added to the answer."""

    status: int = 400

    def __init__(self, message: str, *, headers: Sequence[tuple[str, str]] = ()) -> None:
        super().__init__(message)
        self.message = message
        self.headers = tuple(headers)


class BadRequest(Refusal):
    """The body is not what the model wants; the message says what it wants."""


class NotServed(Refusal):
    """No such path, model or version here."""

    status = 404


class MethodNotAllowed(Refusal):
    """The path is there, but not for this method."""

    status = 405

    def __init__(self, method: str, path: str, allowed: str) -> None:
        super().__init__(f"{path} answers {allowed}, not {method}", headers=[("allow", allowed)])


class BodyTooLarge(Refusal):
    """The body is over the limit (bytes)."""

    status = 413

    def __init__(self, limit: int) -> None:
        super().__init__(f"the body is larger than the limit of {limit} bytes", headers=[("connection", "close")])


class BodyEncoded(Refusal):
    """The body is compressed, which this server does not read."""

    status = 415

    def __init__(self, encoding: str) -> None:
        super().__init__(f"content-encoding '{encoding}' is not accepted; send the body uncompressed")


class Busy(Refusal):
    """The queue is full."""

    status = 429

    def __init__(self, limit: int) -> None:
        super().__init__(
            f"{limit} requests are already waiting or being answered; try again", headers=[("retry-after", "1")]
        )


class ModelFailed(Refusal):
    """The model itself raised; not the caller's fault."""

    status = 500


class NotReady(Refusal):
    """The model is not loaded yet, or the server is going away."""

    status = 503

    def __init__(self, message: str) -> None:
        super().__init__(message, headers=[("retry-after", "1")])


class TooSlow(Refusal):
    """The prediction took longer than the deadline (seconds)."""

    status = 504

    def __init__(self, deadline_seconds: float) -> None:
        super().__init__(f"the prediction took longer than the deadline of {deadline_seconds:g} s")


class LoadFailed(Exception):
    """The model can't be served; the message says why and what to do."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message
