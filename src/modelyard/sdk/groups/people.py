"""People: the members of the project, and where people are signed in.

Both are for people themselves, by an access token of their own: `client.sessions.access_token(name, password)` gives one, for
`Connection(…, access_token=…)`. Members are looked after by the project's owners and by admins, sign-ins by admins.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from urllib.parse import quote

from pydantic import BaseModel, ValidationError

from modelyard.kit.ids import is_id
from modelyard.resources.members.schemas import MemberCreate, MemberList, MemberOne, MemberOut
from modelyard.resources.sessions.schemas import SessionList, SessionOut
from modelyard.sdk.api import Api, checked, error_of
from modelyard.sdk.door import Call
from modelyard.sdk.errors import UnexpectedAnswer, UnknownName
from modelyard.wire import Empty


class AsyncMembers:
    """`client.members`: who may use the project."""

    def __init__(self, api: Api) -> None:
        self._api = api

    async def list(self, *, page: int = 1, limit: int | None = None) -> Sequence[MemberOut]:
        """The members, oldest users first; all of them, or `limit` of them a page. Raises `PermissionDenied`."""
        params = {} if limit is None else {"page": page, "limit": limit}
        return (await self._api.ask(MemberList, "GET", "/members", params=params)).member_list

    async def add(
        self, name: str, *, role: str = "MEMBER", password: str | None = None, idempotency_key: str | None = None
    ) -> MemberOut:
        """Make a user a member (`role` MEMBER or OWNER), or change a member's role.

        With `password`, 12 characters at least, an admin adds the user to the platform, too. Raises `PermissionDenied`, `BadRequest`,
        and `Conflict` where the project would lose its last owner.
        """
        body = checked(MemberCreate, {"userName": name, "roleCode": role, "password": password})
        answer = await self._api.ask(MemberOne, "POST", "/members", body=body, idempotency_key=idempotency_key)
        return answer.member

    async def remove(self, key: str) -> None:
        """Make somebody, by name or id, a member no more. Raises `PermissionDenied`, `UnknownName`, `NotFound`, `Conflict`."""
        id = key if is_id(key) else await self._id_of(key)
        await self._api.ask(Empty, "DELETE", f"/members/{quote(id, safe='')}")

    async def _id_of(self, name: str) -> str:
        members = await self.list()
        found = next((item.user_id for item in members if item.user_name == name), None)
        if found is None:
            raise UnknownName("member", name, [item.user_name for item in members])
        return found


class AsyncSessions:
    """`client.sessions`: where people are signed in with browsers. For admins, but for `access_token`."""

    def __init__(self, api: Api) -> None:
        self._api = api

    async def list(self, *, page: int = 1, limit: int | None = None) -> Sequence[SessionOut]:
        """Sign-ins, newest first; all of them, or `limit` of them a page. Raises `PermissionDenied`."""
        params = {} if limit is None else {"page": page, "limit": limit}
        answer = await self._api.ask(SessionList, "GET", "/sessions", params=params, is_platform_wide=True)
        return answer.session_list

    async def revoke(self, id: str) -> None:
        """End a sign-in; what its browser has open ends within seconds. Raises `PermissionDenied`, `NotFound`."""
        await self._api.ask(Empty, "DELETE", f"/sessions/{quote(id, safe='')}", is_platform_wide=True)

    async def access_token(self, name: str, password: str) -> str:
        """An access token of a person, good for a day and for all their projects. Raises `Unauthenticated`."""
        secret = base64.b64encode(f"{name}:{password}".encode()).decode()
        headers = {"Authorization": f"Basic {secret}", "Content-Type": "application/x-www-form-urlencoded"}
        url = f"{self._api.connection.api_url}/oauth2/token/create"
        call = Call("POST", url, {}, headers, b"grant_type=client_credentials")
        answer = await self._api.send(call)
        if answer.status != 200:
            raise error_of(answer, call)
        try:
            return _Token.model_validate_json(answer.body).access_token
        except ValidationError as error:
            raise UnexpectedAnswer(f"{url} didn't answer with a token") from error


class _Token(BaseModel):
    access_token: str
