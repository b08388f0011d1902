"""Sentences of signing in and of visiting."""

from __future__ import annotations

from modelyard.kit.errors import Forbidden, Unauthenticated, UserError


class SignInFailed(Unauthenticated):
    """Name or password is wrong. Which of them is not told."""

    code = 401010

    def __init__(self) -> None:
        super().__init__("the name or the password is wrong")


class TooManyFailures(UserError):
    """Too many wrong passwords lately; nothing was checked."""

    code = 429001
    status = 429

    def __init__(self, seconds: int) -> None:
        super().__init__(f"too many sign-ins have failed lately; try again in {seconds} s")
        self.seconds = seconds


class NotAnAdmin(Forbidden):
    """Only an admin may do this."""

    code = 403010

    def __init__(self) -> None:
        super().__init__(
            "this is for admins: send the access token of an admin's own (POST /oauth2/token/create with name and password)"
        )


class NoPerson(Forbidden):
    """Programs that run on the platform may not open browsers' doors."""

    code = 403011

    def __init__(self) -> None:
        super().__init__("a workload's token can't open what is meant for people; use an access token")
