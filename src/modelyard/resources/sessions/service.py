"""Use cases of sign-ins: in, out, who it is, which there are, end one."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from datetime import timedelta

from sqlalchemy.exc import IntegrityError

from modelyard.db.engine import Database
from modelyard.kit.clock import Clock, utc_now
from modelyard.kit.errors import NotFound
from modelyard.kit.ids import new_id
from modelyard.kit.paging import Page, PageRequest
from modelyard.resources.projects.service import Projects
from modelyard.resources.sessions import repository
from modelyard.resources.sessions.decision import FORGET_AFTER, Failures, buckets, one_more, wait_seconds
from modelyard.resources.sessions.errors import NotAnAdmin, SignInFailed, TooManyFailures
from modelyard.resources.sessions.model import SessionLimits, SignedIn
from modelyard.resources.sessions.table import FailureRow, SessionRow
from modelyard.resources.users.model import User
from modelyard.resources.users.service import Users

_PASSWORDS_AT_ONCE = 4  # each takes 19 MiB and a core for a while
_SEEN_EVERY = timedelta(minutes=1)
_MAX_ADDRESS_CHARACTERS = 64
_MAX_AGENT_CHARACTERS = 256


class Sessions:
    """Sign-ins of people in browsers. A sign-in is a random token; the database has its digest."""

    def __init__(
        self,
        database: Database,
        users: Users,
        projects: Projects,
        limits: SessionLimits | None = None,
        clock: Clock = utc_now,
    ) -> None:
        self._database = database
        self._users = users
        self._projects = projects
        self._limits = limits or SessionLimits()
        self._clock = clock
        self._checking = asyncio.Semaphore(_PASSWORDS_AT_ONCE)

    @property
    def limits(self) -> SessionLimits:
        """How long a sign-in lasts."""
        return self._limits

    async def check_password(self, name: str, password: str, address: str) -> User:
        """The user whose password this is. Raises `SignInFailed`, or `TooManyFailures` with nothing looked at."""
        counted = buckets(name, address)
        keys = [bucket.key for bucket in counted]
        async with self._checking:  # what was counted is read here, so a burst of guesses is no way around it
            async with self._database.read() as session:
                known = {key: _failures(row) for key, row in (await repository.failures(session, keys)).items()}
            if seconds := wait_seconds([(bucket, known.get(bucket.key)) for bucket in counted], self._clock()):
                raise TooManyFailures(seconds)
            user = await self._users.verify(name, password)
            if user is None:
                await self._count_failure(keys)
                raise SignInFailed
        if keys[0] in known:
            await self._forget_failures(keys[0])
        return user

    async def sign_in(self, name: str, password: str, address: str, user_agent: str) -> tuple[str, SignedIn]:
        """A new sign-in and its token. Raises as `check_password` does."""
        return await self._start(await self.check_password(name, password, address), address, user_agent)

    async def find(self, token: str) -> SignedIn | None:
        """Whose sign-in the token is, while it is good. Using it puts off its end by idleness."""
        async with self._database.read() as session:
            row = await repository.by_token(session, digest(token))
        found = None if row is None else await self._still_good(row)
        if found is not None:
            await self.note_seen(found)
        return found

    async def get(self, session_id: str) -> SignedIn | None:
        """One sign-in, while it is good."""
        async with self._database.read() as session:
            row = await repository.by_id(session, session_id)
        return None if row is None else await self._still_good(row)

    async def note_seen(self, found: SignedIn) -> None:
        """Remember that the sign-in is in use, once a minute."""
        now = self._clock()
        if now - found.seen_at < _SEEN_EVERY:
            return
        async with self._database.write() as session:
            row = await repository.by_id(session, found.id)
            if row is not None:
                row.seen_at = now

    async def sign_out(self, token: str) -> None:
        """End the sign-in of this token, and all visits by it."""
        async with self._database.write() as session:
            row = await repository.by_token(session, digest(token))
            if row is not None:
                await session.delete(row)

    async def list(self, page: PageRequest, user_id: str | None = None) -> Page[SignedIn]:
        """Sign-ins that are good, newest first; of one user, or of all."""
        async with self._database.read() as session:
            rows, total = await repository.page(session, self._clock(), page.offset, page.limit, user_id)
        users = await self._users.get_many(sorted({row.user_id for row in rows}))
        items = [self._if_good(row, users.get(row.user_id)) for row in rows]
        return Page([item for item in items if item is not None], total, page)

    async def revoke(self, session_id: str) -> None:
        """End a sign-in; what its browser has open ends within seconds. Raises `NotFound`."""
        async with self._database.write() as session:
            row = await repository.by_id(session, session_id)
            if row is None:
                raise NotFound("session", session_id)
            await session.delete(row)

    async def require_admin(self, token: str | None) -> User:
        """The admin whose own access token this is. Raises `NotAnAdmin`."""
        user_id = await self._projects.user_of_token(token) if token else None
        user = await self._users.get(user_id) if user_id else None
        if user is None or not user.is_admin:
            raise NotAnAdmin
        return user

    async def change_password(self, user_name: str, old: str, new: str, address: str) -> User:
        """Another password for a user who knows the old one. Ends all their sign-ins and access tokens. Raises as `check_password` does."""
        user = await self.check_password(user_name, old, address)
        await self._users.change_password(user.id, new)
        await self._projects.revoke_user_tokens(user.id)
        return user

    async def keep_house(self) -> None:
        """Forget what is over."""
        now = self._clock()
        async with self._database.write() as session:
            await repository.remove_expired(session, now, now - self._limits.idle, now - FORGET_AFTER)

    async def _start(self, user: User, address: str, user_agent: str) -> tuple[str, SignedIn]:
        token, now = secrets.token_urlsafe(32), self._clock()
        row = SessionRow(
            id=new_id(),
            token_hash=digest(token),
            user_id=user.id,
            created_at=now,
            seen_at=now,
            expires_at=now + self._limits.whole,
            address=address[:_MAX_ADDRESS_CHARACTERS],
            user_agent=user_agent.replace("\0", "")[:_MAX_AGENT_CHARACTERS],
        )
        async with self._database.write() as session:
            session.add(row)
        return token, _signed_in(row, user)

    async def _still_good(self, row: SessionRow) -> SignedIn | None:
        return self._if_good(row, await self._users.get(row.user_id))

    def _if_good(self, row: SessionRow, user: User | None) -> SignedIn | None:
        now = self._clock()
        if user is None or row.expires_at <= now or row.seen_at + self._limits.idle <= now:
            return None
        if row.created_at < user.password_changed_at:
            return None
        return _signed_in(row, user)

    async def _count_failure(self, keys: list[str]) -> None:
        try:
            await self._count(keys)
        except IntegrityError:  # the first failures of one name at the same moment, on two servers
            await self._count(keys)

    async def _count(self, keys: list[str]) -> None:
        now = self._clock()
        async with self._database.write() as session:
            known = await repository.failures(session, keys)
            for key in keys:
                row = known.get(key)
                counted = one_more(None if row is None else _failures(row), now)
                if row is None:
                    session.add(FailureRow(key=key, count=counted.count, last_at=counted.last_at))
                else:
                    row.count, row.last_at = counted.count, counted.last_at

    async def _forget_failures(self, key: str) -> None:
        async with self._database.write() as session:
            for row in (await repository.failures(session, [key])).values():
                await session.delete(row)


def digest(secret: str) -> str:
    """SHA-256 is enough for secrets that are random and long."""
    return hashlib.sha256(secret.encode(errors="replace")).hexdigest()


def _failures(row: FailureRow) -> Failures:
    return Failures(row.count, row.last_at)


def _signed_in(row: SessionRow, user: User) -> SignedIn:
    return SignedIn(
        id=row.id,
        user_id=user.id,
        user_name=user.name,
        is_admin=user.is_admin,
        created_at=row.created_at,
        seen_at=row.seen_at,
        expires_at=row.expires_at,
        address=row.address,
        user_agent=row.user_agent,
    )
