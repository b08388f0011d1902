"""Sentences of projects and credentials."""

from __future__ import annotations

from modelyard.kit.errors import Forbidden, Unauthenticated


class NoCredential(Unauthenticated):
    """The request carried no credential."""

    code = 401001

    def __init__(self) -> None:
        super().__init__(
            "no credential: send 'x-nhn-authorization: Bearer {access token}' or 'X-Secret-Key: {secret key}' "
            "(`modelyard credentials` shows both)"
        )


class BadCredential(Unauthenticated):
    """The credential is unknown or has expired."""

    code = 401002

    def __init__(self) -> None:
        super().__init__("the credential is not valid (any more); `modelyard credentials` shows the current ones")


class WorkloadEnded(Unauthenticated):
    """The credential was a workload's, which is over."""

    code = 401003

    def __init__(self) -> None:
        super().__init__(
            "this token was given to a training, notebook or endpoint that has ended; inside a new start there is a new one, elsewhere use the "
            "project's own credentials (`modelyard credentials` shows them)"
        )


class NotYourProject(Forbidden):
    """The credential belongs to another project, or the app key to none. Both read alike, so that app keys can't be guessed."""

    code = 403002

    def __init__(self, app_key: str) -> None:
        super().__init__(f"this credential does not open the project with app key '{app_key}'")
