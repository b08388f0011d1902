"""Sentences of members."""

from __future__ import annotations

from modelyard.kit.errors import Conflict, Forbidden


class NotAnOwner(Forbidden):
    """Only people who own the project, and admins, look after its members."""

    code = 403012

    def __init__(self) -> None:
        super().__init__(
            "members are looked after by the project's owners and by admins: send the access token of such a person's own "
            "(POST /oauth2/token/create with name and password), not the project's or a workload's"
        )


class LastOwner(Conflict):
    """A project keeps an owner."""

    code = 409011

    def __init__(self, user_name: str) -> None:
        super().__init__(f"'{user_name}' is the only owner of the project; make somebody else an owner first")
