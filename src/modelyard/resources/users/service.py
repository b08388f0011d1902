"""Use cases of users: create one, check a password."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from argon2 import PasswordHasher
from argon2.exceptions import Argon2Error, InvalidHashError

from modelyard.db.engine import Database
from modelyard.kit.clock import Clock, utc_now
from modelyard.kit.errors import NotFound
from modelyard.kit.ids import new_id
from modelyard.resources.users import repository
from modelyard.resources.users.model import User
from modelyard.resources.users.table import UserRow


class Users:
    """People and their passwords."""

    def __init__(self, database: Database, clock: Clock = utc_now) -> None:
        self._database = database
        self._clock = clock
        # 19 MiB, 2 passes, 1 lane: OWASP's first choice for Argon2id (Password Storage Cheat Sheet).
        self._hasher = PasswordHasher(time_cost=2, memory_cost=19456, parallelism=1)

    async def ensure(self, name: str, password: str, *, is_admin: bool = False) -> User:
        """The user of this name; created with the password when there is none."""
        async with self._database.read() as session:
            row = await repository.by_name(session, name)
        if row is None:
            digest = await asyncio.to_thread(self._hasher.hash, password)
            async with self._database.write() as session:
                row = await repository.by_name(session, name)
                if row is None:
                    now = self._clock()
                    row = UserRow(
                        id=new_id(),
                        name=name,
                        password_hash=digest,
                        is_admin=is_admin,
                        created_at=now,
                        password_changed_at=now,
                    )
                    session.add(row)
        return _user(row)

    async def get(self, user_id: str) -> User | None:
        """One user."""
        async with self._database.read() as session:
            row = await repository.by_id(session, user_id)
        return None if row is None else _user(row)

    async def find(self, name: str) -> User | None:
        """The user of this name."""
        async with self._database.read() as session:
            row = await repository.by_name(session, name)
        return None if row is None else _user(row)

    async def get_many(self, user_ids: Sequence[str]) -> dict[str, User]:
        """Several users, by their ids."""
        async with self._database.read() as session:
            return {row.id: _user(row) for row in await repository.by_ids(session, user_ids)}

    async def change_password(self, user_id: str, password: str) -> None:
        """Give a user another password. Every sign-in of theirs from before is over with this."""
        digest = await asyncio.to_thread(self._hasher.hash, password)
        async with self._database.write() as session:
            row = await repository.by_id(session, user_id)
            if row is None:
                raise NotFound("user", user_id)
            row.password_hash = digest
            row.password_changed_at = self._clock()

    async def verify(self, name: str, password: str) -> User | None:
        """The user, if the password is theirs. Takes as long for an unknown name as for a wrong password."""
        async with self._database.read() as session:
            row = await repository.by_name(session, name)
        if row is None:
            await asyncio.to_thread(self._hasher.hash, password)  # costs what checking one costs
            return None
        try:
            await asyncio.to_thread(self._hasher.verify, row.password_hash, password)
        except (Argon2Error, InvalidHashError):
            return None
        return _user(row)


def _user(row: UserRow) -> User:
    return User(row.id, row.name, row.is_admin, row.password_changed_at)
