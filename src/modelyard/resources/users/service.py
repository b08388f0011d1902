"""Use cases of users: create one, check a password."""

from __future__ import annotations

import asyncio

from argon2 import PasswordHasher
from argon2.exceptions import Argon2Error, InvalidHashError

from modelyard.db.engine import Database
from modelyard.kit.clock import utc_now
from modelyard.kit.ids import new_id
from modelyard.resources.users import repository
from modelyard.resources.users.model import User
from modelyard.resources.users.table import UserRow


class Users:
    """People and their passwords."""

    def __init__(self, database: Database) -> None:
        self._database = database
        # 19 MiB, 2 passes, 1 lane: OWASP's first choice for Argon2id (Password Storage Cheat Sheet).
        self._hasher = PasswordHasher(time_cost=2, memory_cost=19456, parallelism=1)
        self._nobody_hash = self._hasher.hash("nobody")

    async def ensure(self, name: str, password: str, *, is_admin: bool = False) -> User:
        """The user of this name; created with the password when there is none."""
        async with self._database.read() as session:
            row = await repository.by_name(session, name)
        if row is None:
            digest = await asyncio.to_thread(self._hasher.hash, password)
            async with self._database.write() as session:
                row = await repository.by_name(session, name)
                if row is None:
                    row = UserRow(id=new_id(), name=name, password_hash=digest, is_admin=is_admin, created_at=utc_now())
                    session.add(row)
        return _user(row)

    async def verify(self, name: str, password: str) -> User | None:
        """The user, if the password is theirs. Takes as long for an unknown name as for a wrong password."""
        async with self._database.read() as session:
            row = await repository.by_name(session, name)
        digest = row.password_hash if row is not None else self._nobody_hash
        try:
            await asyncio.to_thread(self._hasher.verify, digest, password)
        except (Argon2Error, InvalidHashError):
            return None
        return _user(row) if row is not None else None


def _user(row: UserRow) -> User:
    return User(row.id, row.name, row.is_admin)
