"""Visits: by what right a browser may see a notebook or a TensorBoard, asked for every request.

A browser gets in with a one-time code: by its sign-in on the main origin (bound to what that browser keeps, so that nobody can be led into a visit
of somebody else's), or by an access token (`modelyard notebook open`). The code is exchanged for a token in a cookie of that one origin. What
the database says of a token is remembered for `MEMORY_SECONDS`, since it is asked for every request.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from time import monotonic

from modelyard.db.engine import Database
from modelyard.kit.clock import Clock, utc_now
from modelyard.kit.errors import Fault, Invalid, NotFound
from modelyard.resources.projects.model import Caller
from modelyard.resources.projects.service import Projects
from modelyard.resources.routes.service import Routes
from modelyard.resources.sessions import repository
from modelyard.resources.sessions.errors import NoPerson
from modelyard.resources.sessions.model import (
    CODE_SECONDS,
    Entry,
    Holder,
    NotesUse,
    Openable,
    Opening,
    SignedIn,
    Target,
    Visitor,
)
from modelyard.resources.sessions.service import Sessions, digest
from modelyard.resources.sessions.table import CodeRow, VisitRow

MEMORY_SECONDS = 2.0
MAX_PATH_CHARACTERS = 4000
_MEMORY_ENTRIES = 10_000
_NOTE_USE_SECONDS = 60.0
_SETTLED = timedelta(seconds=MEMORY_SECONDS + 0.5)


@dataclass(frozen=True, slots=True)
class _Basis:
    """What a visit rests on: somebody's right to a project."""

    project_id: str
    holder: Holder


class Visits:
    """Gives out codes, takes them, and says who may pass."""

    def __init__(
        self, database: Database, sessions: Sessions, projects: Projects, routes: Routes, clock: Clock = utc_now
    ) -> None:
        self._database = database
        self._sessions = sessions
        self._projects = projects
        self._routes = routes
        self._clock = clock
        self._memory: dict[tuple[str, str], tuple[float, Visitor]] = {}
        self._noted: dict[tuple[str, str], float] = {}
        self.targets: dict[str, Openable] = {}

    async def find_target(self, kind: str, id: str, signed_in: SignedIn) -> Target | None:
        """What somebody wants to visit; None when there is no such thing, or none of a project of theirs."""
        openable = self.targets.get(kind)
        target = await openable.find_target(id) if openable is not None else None
        if target is None or not await self._projects.is_member(target.project_id, signed_in.user_id):
            return None
        return target

    async def open(self, target: Target, actor: str) -> Opening:
        """Have it ready for a visitor."""
        return await self.targets[target.kind].open_target(target, actor)

    async def code_for_session(self, target: Target, signed_in: SignedIn, state: str, path: str) -> str:
        """A code for the browser that keeps what `state` is the digest of. Raises `Invalid` for a path that is none."""
        return await self._issue(target, Holder(session_id=signed_in.id), path, state_hash=state)

    async def code_for_caller(self, caller: Caller, kind: str, id: str, path: str) -> tuple[str, datetime]:
        """A code by the caller's access token, and until when it is good. Raises `NoPerson`, `NotFound`, `Invalid`."""
        if caller.credential is None:
            raise NoPerson
        openable = self.targets.get(kind)
        if openable is None:
            known = ", ".join(sorted(self.targets)) or "nothing yet"
            raise Invalid([Fault("kind", f"'{kind}' is nothing that can be opened; there is: {known}")])
        target = await openable.find_target(id)
        if target is None or target.project_id != caller.project.id:
            raise NotFound(kind, id)
        code = await self._issue(target, Holder(credential=caller.credential), path, state_hash=None)
        return code, self._clock() + timedelta(seconds=CODE_SECONDS)

    async def enter(self, code: str, kind: str, id: str, state: str | None) -> Entry | None:
        """Take a code. None when it is unknown, used, too old, for something else, for another browser, or its right is gone.

        Args:
            state: the digest of what this browser keeps; None when it keeps nothing.
        """
        now = self._clock()
        async with self._database.write() as session:
            row = await repository.take_code(session, digest(code))
        if row is None or row.expires_at <= now or (row.kind, row.target_id) != (kind, id):
            return None
        if row.state_hash is not None and not hmac.compare_digest(row.state_hash, state or ""):
            return None
        holder = Holder(row.session_id, row.credential)
        if await self._visitor(_Basis(row.project_id, holder)) is None:
            return None
        token, expires_at = secrets.token_urlsafe(32), await self._expiry(holder, now)
        async with self._database.write() as session:
            session.add(
                VisitRow(
                    token_hash=digest(token),
                    kind=kind,
                    target_id=id,
                    project_id=row.project_id,
                    session_id=row.session_id,
                    credential=row.credential,
                    created_at=now,
                    expires_at=expires_at,
                )
            )
        return Entry(token, expires_at, row.path)

    async def visitor(self, token: str, project_id: str, kind: str, id: str) -> Visitor | None:
        """Who passes with this token to this thing of this project."""
        key = (token, f"{project_id}/{kind}/{id}")
        now = monotonic()
        until, visitor = self._memory.get(key, (0.0, None))
        if until > now:
            return visitor
        visitor = await self._look(token, project_id, kind, id)
        if visitor is not None:
            await self._note_use(kind, id, now)
        if visitor is None:
            self._memory.pop(key, None)
        else:
            if len(self._memory) >= _MEMORY_ENTRIES:
                self._memory.clear()
            self._memory[key] = (now + MEMORY_SECONDS, visitor)
        return visitor

    async def end_lost(self) -> int:
        """End the visits whose right is gone, and the connections that they have open. How many visits were ended for good.

        In two steps, since some server may remember a visit for a moment more: it is marked first, and connections are ended when nobody
        lets it pass any more.
        """
        now = self._clock()
        async with self._database.read() as session:
            rows = await repository.visits(session)
        over = [row for row in rows if row.ended_at is not None and row.ended_at + _SETTLED <= now]
        lost = await self._lost([row for row in rows if row.ended_at is None], now)
        if not over and not lost:
            return 0
        async with self._database.write() as session:
            for row in lost:
                known = await repository.visit(session, row.token_hash)
                if known is not None:
                    known.ended_at = now
            for row in over:
                known = await repository.visit(session, row.token_hash)
                if known is not None:
                    await session.delete(known)
            for kind, target_id in sorted({(row.kind, row.target_id) for row in over}):
                await self._routes.end_connections(session, kind, target_id)
        return len(over)

    async def _note_use(self, kind: str, id: str, now: float) -> None:
        openable = self.targets.get(kind)
        if not isinstance(openable, NotesUse) or self._noted.get((kind, id), 0.0) > now:
            return
        if len(self._noted) >= _MEMORY_ENTRIES:
            self._noted.clear()
        self._noted[kind, id] = now + _NOTE_USE_SECONDS
        await openable.note_use(id)

    async def _lost(self, rows: Sequence[VisitRow], now: datetime) -> list[VisitRow]:
        known: dict[_Basis, bool] = {}
        lost: list[VisitRow] = []
        for row in rows:
            basis = _basis(row)
            if row.expires_at > now and basis not in known:
                known[basis] = await self._visitor(basis) is not None
            if row.expires_at <= now or not known[basis]:
                lost.append(row)
        return lost

    async def _look(self, token: str, project_id: str, kind: str, id: str) -> Visitor | None:
        async with self._database.read() as session:
            row = await repository.visit(session, digest(token))
        if row is None or row.ended_at is not None or row.expires_at <= self._clock():
            return None
        if (row.project_id, row.kind, row.target_id) != (project_id, kind, id):
            return None
        return await self._visitor(_basis(row), is_use=True)

    async def _visitor(self, basis: _Basis, *, is_use: bool = False) -> Visitor | None:
        """Who has the right, while it is there."""
        if basis.holder.session_id is None:
            actor = await self._projects.actor_of(basis.holder.credential or "", basis.project_id)
            return None if actor is None else Visitor("", actor)
        signed_in = await self._sessions.get(basis.holder.session_id)
        if signed_in is None or not await self._projects.is_member(basis.project_id, signed_in.user_id):
            return None
        if is_use:
            await self._sessions.note_seen(signed_in)
        return Visitor(signed_in.user_id, signed_in.user_name)

    async def _expiry(self, holder: Holder, now: datetime) -> datetime:
        signed_in = await self._sessions.get(holder.session_id) if holder.session_id is not None else None
        return signed_in.expires_at if signed_in is not None else now + self._sessions.limits.idle

    async def _issue(self, target: Target, holder: Holder, path: str, *, state_hash: str | None) -> str:
        if fault := path_fault(path):
            raise Invalid([Fault("path", fault)])
        code = secrets.token_urlsafe(32)
        async with self._database.write() as session:
            session.add(
                CodeRow(
                    code_hash=digest(code),
                    kind=target.kind,
                    target_id=target.id,
                    project_id=target.project_id,
                    session_id=holder.session_id,
                    credential=holder.credential,
                    state_hash=state_hash,
                    path=path,
                    expires_at=self._clock() + timedelta(seconds=CODE_SECONDS),
                )
            )
        return code


def path_fault(path: str) -> str | None:
    """What is wrong with a path that a browser is to be sent to on the same origin, or None."""
    if not path.startswith("/") or path.startswith("//"):
        return "must begin with one slash"
    if len(path) > MAX_PATH_CHARACTERS:
        return f"must have at most {MAX_PATH_CHARACTERS} characters"
    if not path.isascii() or not path.isprintable() or any(character in path for character in ' \\"<>'):
        return "must have only printable ASCII characters (others percent-encoded), and no backslash, space, quote or angle bracket"
    return None


def _basis(row: VisitRow) -> _Basis:
    return _Basis(row.project_id, Holder(row.session_id, row.credential))
