"""Use cases of projects: make the first one, and tell who is calling."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from time import monotonic
from typing import Any, TypeVar

from sqlalchemy.ext.asyncio import AsyncSession

from modelyard.control.idempotency import claim, recall, remember
from modelyard.control.turns import take_turn
from modelyard.db.engine import Database
from modelyard.kit.clock import Clock, utc_now
from modelyard.kit.ids import IdempotencyKey, new_id
from modelyard.kit.paging import Page, PageRequest
from modelyard.resources.projects import repository
from modelyard.resources.projects.errors import BadCredential, NoCredential, NotYourProject, WorkloadEnded
from modelyard.resources.projects.model import Caller, Member, Project, Role, TokenKind
from modelyard.resources.projects.table import MemberRow, ProjectRow, TokenRow
from modelyard.resources.projects.tokens import Grant, TokenSigner

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ProjectKeys:
    """The credentials of a new project, in clear: they are shown once and kept by the caller."""

    app_key: str
    tenant_id: str
    api_user_id: str
    store_user: str
    store_password: str
    access_token: str
    secret_key: str


def new_project_keys() -> ProjectKeys:
    """Random credentials, 256 bits each where they are secret."""
    return ProjectKeys(
        app_key=secrets.token_urlsafe(12).replace("-", "x").replace("_", "y"),
        tenant_id=secrets.token_hex(16),
        api_user_id=secrets.token_hex(16),
        store_user="modelyard",
        store_password=secrets.token_urlsafe(32),
        access_token="mya_" + secrets.token_urlsafe(32),
        secret_key="mys_" + secrets.token_urlsafe(32),
    )


IsAlive = Callable[[str], Awaitable[bool]]
"""Whether the workload of this id exists and is not over: its token opens doors as long."""


async def _nobody(_workload_id: str) -> bool:
    return False


_MEMBER = "member"
_MEMORY_SECONDS = 5.0
_MEMORY_ENTRIES = 10_000


class Projects:
    """Projects and the credentials that open them.

    What the database said of a credential is remembered for a few seconds: it is asked with every request, and a credential that is
    withdrawn, or whose workload has ended, may work that much longer.
    """

    def __init__(
        self, database: Database, signer: TokenSigner, clock: Clock = utc_now, *, is_alive: IsAlive = _nobody
    ) -> None:
        self._database = database
        self._signer = signer
        self._is_alive = is_alive
        self._clock = clock
        self._memory: dict[tuple[str, ...], tuple[float, Any]] = {}

    async def ensure(self, name: str, keys: ProjectKeys, *, member_id: str | None = None) -> Project:
        """The project of this name; created with the credentials when there is none."""
        async with self._database.write() as session:
            row = await repository.by_name(session, name)
            if row is None:
                row = self._add(session, name, keys)
                if member_id is not None:
                    await session.flush()
                    self._add_member(session, row.id, member_id, Role.OWNER)
            return _project(row)

    async def get(self, project_id: str) -> Project | None:
        """One project."""

        async def _read() -> Project | None:
            async with self._database.read() as session:
                row = await repository.by_id(session, project_id)
            return None if row is None else _project(row)

        return await self._remembered(("project", project_id), _read)

    async def of_tenant(self, tenant_id: str) -> Project | None:
        """The project whose account in the object store this is."""
        async with self._database.read() as session:
            row = await repository.by_tenant(session, tenant_id)
        return None if row is None else _project(row)

    async def authenticate(self, app_key: str, *, token: str | None) -> Caller:
        """Who calls on the project with this app key.

        Raises:
            NoCredential, BadCredential, WorkloadEnded: 401. NotYourProject: 403, also for an app key that does not exist.
        """
        if not token:
            raise NoCredential
        digest = _digest(token)
        known = await self._remembered(("caller", app_key, digest), lambda: self._token_caller(app_key, digest))
        if known is not None:
            return known
        if self._signer.read(token) is not None:
            return await self._workload_caller(app_key, token)
        raise BadCredential

    async def has_app_key(self, app_key: str) -> bool:
        """Whether a project has this app key."""
        async with self._database.read() as session:
            return await repository.by_app_key(session, app_key) is not None

    async def project_of_credential(self, token: str) -> Project | None:
        """The one project that a credential belongs to; None for a user's, which may open several, and for one that is unknown."""
        if self._signer.read(token) is not None:
            grant = await self.grant_of(token)
            return await self.get(grant.project_id) if grant is not None and grant.use == "workload" else None
        return await self.project_of_token(token)

    async def project_of_token(self, token: str) -> Project | None:
        """The project that an access token or secret key of one project belongs to."""
        digest = _digest(token)

        async def _read() -> Project | None:
            async with self._database.read() as session:
                found = await repository.token(session, digest, self._clock())
                if found is None or found.project_id is None:
                    return None
                row = await repository.by_id(session, found.project_id)
            return None if row is None else _project(row)

        return await self._remembered(("token", digest), _read)

    async def store_login(self, tenant_id: str, user: str, password: str) -> tuple[str, datetime, Project] | None:
        """A token for the object store, when it expires, and the project; None if user and password don't fit the tenant."""
        async with self._database.read() as session:
            row = await repository.by_tenant(session, tenant_id)
        digest = row.store_password_hash if row is not None else "0" * 64
        is_right = hmac.compare_digest(_digest(password), digest)
        if row is None or not is_right or not hmac.compare_digest(user.encode(), row.store_user.encode()):
            return None
        project = _project(row)
        return *self._sign_store(project, user, timedelta(hours=12)), project

    def sign_store_user(self, project: Project, lifetime: timedelta) -> tuple[str, datetime]:
        """A token for the object store as the project's user there, for people and programs outside workloads."""
        return self._sign_store(project, project.store_user, lifetime)

    def sign_workload(self, project: Project, workload_id: str, expires_at: datetime | None = None) -> str:
        """A token that an instance acts with, as the project's system account: good as long as the workload lives, and no longer than told."""
        return self._signer.sign(
            "workload", project_id=project.id, tenant_id=project.tenant_id, subject=workload_id, expires_at=expires_at
        )

    async def grant_of(self, token: str) -> Grant | None:
        """What a signed token is good for; None for one that is not ours, has expired, or whose workload has ended."""
        grant = self._signer.read(token)
        if grant is None or grant.use != "workload":
            return grant

        async def _living() -> bool | None:
            return True if await self._is_alive(grant.subject) else None

        return grant if await self._remembered(("workload", grant.subject), _living) else None

    async def issue_user_token(self, user_id: str, lifetime: timedelta) -> tuple[str, datetime]:
        """An access token of a user, good for all projects that they are a member of."""
        token = "myu_" + secrets.token_urlsafe(32)
        expires_at = self._clock() + lifetime
        async with self._database.write() as session:
            session.add(
                TokenRow(
                    hash=_digest(token),
                    kind=TokenKind.ACCESS.value,
                    user_id=user_id,
                    created_at=self._clock(),
                    expires_at=expires_at,
                )
            )
        return token, expires_at

    async def user_of_token(self, token: str) -> str | None:
        """The id of the user whose access token this is; None for any other credential."""
        async with self._database.read() as session:
            found = await repository.token(session, _digest(token), self._clock())
        return None if found is None else found.user_id

    async def actor_of(self, credential: str, project_id: str) -> str | None:
        """Who acts by an access token or secret key of this digest, if it is still good and opens the project. Read anew each time."""
        async with self._database.read() as session:
            found = await repository.token(session, credential, self._clock())
            row = None if found is None else await repository.by_id(session, project_id)
            if found is None or row is None or not await self._opens(session, found, row):
                return None
        return _actor(found)

    async def is_member(self, project_id: str, user_id: str) -> bool:
        """Whether the user is a member of the project. Read anew each time."""
        async with self._database.read() as session:
            return await repository.is_member(session, project_id, user_id)

    async def role_of(self, project_id: str, user_id: str) -> Role | None:
        """What the user may do in the project; None for who is no member. Read anew each time."""
        async with self._database.read() as session:
            row = await repository.member(session, project_id, user_id)
        return None if row is None else Role(row.role)

    async def members(self, project_id: str, page: PageRequest) -> Page[Member]:
        """The members, oldest users first."""
        async with self._database.read() as session:
            rows = await repository.members(session, project_id, page.offset, page.limit)
            total = await repository.member_count(session, project_id)
        return Page([_member(row) for row in rows], total, page)

    async def recall_member(self, project_id: str, key: IdempotencyKey | None) -> Member | None:
        """Whom a request with this key has made a member. Raises `KeyReused`."""
        async with self._database.read() as session:
            user_id = await recall(session, project_id, _MEMBER, key)
            row = None if user_id is None else await repository.member(session, project_id, user_id)
        return None if row is None else _member(row)

    async def add_member(
        self, project_id: str, user_id: str, role: Role = Role.MEMBER, key: IdempotencyKey | None = None
    ) -> Member | None:
        """Make a user a member in this role, or change a member's role to it; None where the project would lose its last owner."""
        async with self._database.write() as session:
            await take_turn(session, "members", project_id)
            if await claim(session, project_id, _MEMBER, key) is None:
                remember(session, project_id, _MEMBER, key, user_id)
            row = await repository.member(session, project_id, user_id)
            if row is None:
                row = self._add_member(session, project_id, user_id, role)
            elif role is not Role.OWNER and await _is_last_owner(session, row):
                return None
            row.role = role.value
            return _member(row)

    async def remove_member(self, project_id: str, user_id: str) -> bool:
        """Make a user a member no more; not being one is fine. What they have open in browsers ends within seconds.

        False where the project would lose its last owner: nothing has changed then.
        """
        async with self._database.write() as session:
            await take_turn(session, "members", project_id)
            row = await repository.member(session, project_id, user_id)
            if row is not None and await _is_last_owner(session, row):
                return False
            if row is not None:
                await session.delete(row)
        return True

    async def revoke_user_tokens(self, user_id: str) -> None:
        """End all access tokens of a user. What was remembered of them works for some seconds more."""
        async with self._database.write() as session:
            for row in await repository.user_tokens(session, user_id):
                await session.delete(row)

    async def _token_caller(self, app_key: str, digest: str) -> Caller | None:
        """Who calls by an access token or secret key; None for one that is unknown or has expired. Raises `NotYourProject`."""
        async with self._database.read() as session:
            found = await repository.token(session, digest, self._clock())
            if found is None:
                return None
            row = await repository.by_app_key(session, app_key)
            if row is None or not await self._opens(session, found, row):
                raise NotYourProject(app_key)
        return Caller(_project(row), _actor(found), TokenKind(found.kind), credential=found.hash, user_id=found.user_id)

    async def _remembered(self, key: tuple[str, ...], read: Callable[[], Awaitable[T | None]]) -> T | None:
        """What was read a moment ago, or is read now. That there is nothing is not remembered: it may come any moment."""
        now = monotonic()
        until, value = self._memory.get(key, (0.0, None))
        if until > now:
            return value
        value = await read()
        if value is not None:
            if len(self._memory) >= _MEMORY_ENTRIES:
                self._memory.clear()
            self._memory[key] = (now + _MEMORY_SECONDS, value)
        return value

    async def _workload_caller(self, app_key: str, token: str) -> Caller:
        grant = await self.grant_of(token)
        if grant is None:
            raise WorkloadEnded
        if grant.use != "workload":
            raise BadCredential
        project = await self.get(grant.project_id)
        if project is None or project.app_key != app_key:
            raise NotYourProject(app_key)
        return Caller(project, f"workload:{grant.subject}", TokenKind.WORKLOAD, grant.subject)

    def _sign_store(self, project: Project, user: str, lifetime: timedelta) -> tuple[str, datetime]:
        expires_at = (self._clock() + lifetime).replace(microsecond=0)
        token = self._signer.sign(
            "object", project_id=project.id, tenant_id=project.tenant_id, subject=user, expires_at=expires_at
        )
        return token, expires_at

    async def _opens(self, session: AsyncSession, token: TokenRow, project: ProjectRow) -> bool:
        if token.project_id is not None:
            return token.project_id == project.id
        return token.user_id is not None and await repository.is_member(session, project.id, token.user_id)

    def _add_member(self, session: AsyncSession, project_id: str, user_id: str, role: Role) -> MemberRow:
        row = MemberRow(project_id=project_id, user_id=user_id, role=role.value, created_at=self._clock())
        session.add(row)
        return row

    def _add(self, session: AsyncSession, name: str, keys: ProjectKeys) -> ProjectRow:
        now = self._clock()
        row = ProjectRow(
            id=new_id(),
            name=name,
            app_key=keys.app_key,
            tenant_id=keys.tenant_id,
            api_user_id=keys.api_user_id,
            store_user=keys.store_user,
            store_password_hash=_digest(keys.store_password),
            created_at=now,
        )
        session.add(row)
        for kind, token in ((TokenKind.ACCESS, keys.access_token), (TokenKind.SECRET, keys.secret_key)):
            session.add(TokenRow(hash=_digest(token), kind=kind.value, project_id=row.id, created_at=now))
        return row


async def _is_last_owner(session: AsyncSession, row: MemberRow) -> bool:
    owners = await repository.member_count(session, row.project_id, Role.OWNER.value)
    return row.role == Role.OWNER.value and owners == 1


def _member(row: MemberRow) -> Member:
    return Member(row.user_id, Role(row.role), row.created_at)


def _actor(token: TokenRow) -> str:
    return f"user:{token.user_id}" if token.user_id else f"{token.kind}:{token.hash[:8]}"


def _digest(secret: str) -> str:
    """SHA-256 is enough for secrets that are random and long; a slow hash would only slow every request."""
    return hashlib.sha256(secret.encode()).hexdigest()


def _project(row: ProjectRow) -> Project:
    return Project(row.id, row.name, row.app_key, row.tenant_id, row.api_user_id, row.store_user)
