"""Use cases of members: who there is, one more, one less. For owners of the project and for admins."""

from __future__ import annotations

from modelyard.kit.errors import Fault, Invalid, NotFound
from modelyard.kit.paging import Page, PageRequest
from modelyard.resources.members.errors import LastOwner, NotAnOwner
from modelyard.resources.members.schemas import MemberCreate, MemberOut
from modelyard.resources.projects.model import Caller, Member, Role
from modelyard.resources.projects.service import Projects
from modelyard.resources.users.model import User
from modelyard.resources.users.service import Users


class Members:
    """Who may use a project. Every call says first whether the caller is somebody who may ask."""

    def __init__(self, projects: Projects, users: Users) -> None:
        self._projects = projects
        self._users = users

    async def list(self, caller: Caller, page: PageRequest) -> Page[MemberOut]:
        """The members, those who came first at the beginning. Raises `NotAnOwner`."""
        await self._check(caller)
        found = await self._projects.members(caller.project.id, page)
        users = await self._users.get_many([item.user_id for item in found.items])
        return Page([_out(item, users[item.user_id]) for item in found.items], found.total_count, page)

    async def add(self, caller: Caller, wanted: MemberCreate) -> MemberOut:
        """Make somebody a member, in this role; who is one already changes to it.

        Raises `NotAnOwner`, `LastOwner`, and `Invalid` for a name that no user has.
        """
        asking = await self._check(caller)
        project_id, key = caller.project.id, caller.idempotency_key
        known = await self._projects.recall_member(project_id, key)
        user = await self._users.get(known.user_id) if known else await self._users.find(wanted.user_name)
        if known is not None and user is not None:
            return _out(known, user)
        if user is None or wanted.password is not None:
            user = await self._new_user(asking, wanted, user)
        member = await self._projects.add_member(project_id, user.id, wanted.role_code, key)
        if member is None:
            raise LastOwner(user.name)
        return _out(member, user)

    async def remove(self, caller: Caller, user_id: str) -> None:
        """Make somebody a member no more; what they have open ends within seconds. Raises `NotAnOwner`, `NotFound`, `LastOwner`."""
        await self._check(caller)
        user = await self._users.get(user_id)
        if user is None or not await self._projects.is_member(caller.project.id, user_id):
            raise NotFound("member", user_id)
        if not await self._projects.remove_member(caller.project.id, user_id):
            raise LastOwner(user.name)

    async def _check(self, caller: Caller) -> User:
        user = None if caller.user_id is None else await self._users.get(caller.user_id)
        if user is None:
            raise NotAnOwner
        if not user.is_admin and await self._projects.role_of(caller.project.id, user.id) is not Role.OWNER:
            raise NotAnOwner
        return user

    async def _new_user(self, asking: User, wanted: MemberCreate, known: User | None) -> User:
        name = wanted.user_name
        if known is not None:
            # Nothing is told of whether the password is right.
            message = f"there is a user '{name}' already, who has a password; leave it out"
            raise Invalid([Fault("password", message)])
        if wanted.password is None:
            raise Invalid([Fault("userName", f"there is no user '{name}'; an admin can add one by giving a password")])
        if not asking.is_admin:
            raise Invalid([Fault("userName", f"there is no user '{name}'; ask an admin to add one")])
        return await self._users.ensure(name, wanted.password)


def _out(member: Member, user: User) -> MemberOut:
    return MemberOut(user_id=user.id, user_name=user.name, role_code=member.role, created_datetime=member.created_at)
