"""Queries on projects and credentials."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import func, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from modelyard.db.rows import row_of
from modelyard.resources.projects.table import MemberRow, ProjectRow, TokenRow


async def by_name(session: AsyncSession, name: str) -> ProjectRow | None:
    """The project of this name."""
    return await session.scalar(select(ProjectRow).where(ProjectRow.name == name))


async def by_app_key(session: AsyncSession, app_key: str) -> ProjectRow | None:
    """The project of this app key."""
    return await session.scalar(select(ProjectRow).where(ProjectRow.app_key == app_key))


async def by_tenant(session: AsyncSession, tenant_id: str) -> ProjectRow | None:
    """The project whose account in the object store this is."""
    return await session.scalar(select(ProjectRow).where(ProjectRow.tenant_id == tenant_id))


async def by_id(session: AsyncSession, project_id: str) -> ProjectRow | None:
    """One project."""
    return await row_of(session, ProjectRow, project_id)


async def token(session: AsyncSession, token_hash: str, now: datetime) -> TokenRow | None:
    """A credential that is still valid."""
    return await session.scalar(
        select(TokenRow).where(
            TokenRow.hash == token_hash, or_(TokenRow.expires_at.is_(None), TokenRow.expires_at > now)
        )
    )


async def projects_of(session: AsyncSession, user_id: str) -> Sequence[ProjectRow]:
    """The projects that a user is a member of."""
    statement = select(ProjectRow).join(MemberRow, MemberRow.project_id == ProjectRow.id)
    return (await session.scalars(statement.where(MemberRow.user_id == user_id))).all()


async def member(session: AsyncSession, project_id: str, user_id: str) -> MemberRow | None:
    """The membership."""
    return await session.get(MemberRow, (project_id, user_id))


async def members(session: AsyncSession, project_id: str, offset: int, limit: int | None) -> Sequence[MemberRow]:
    """Memberships, oldest users first."""
    statement = select(MemberRow).where(MemberRow.project_id == project_id).order_by(MemberRow.user_id)
    return (await session.scalars(statement.offset(offset).limit(limit))).all()


async def member_count(session: AsyncSession, project_id: str, role: str | None = None) -> int:
    """How many members there are, of this role or at all."""
    statement = select(func.count()).select_from(MemberRow).where(MemberRow.project_id == project_id)
    return (await session.scalars(statement if role is None else statement.where(MemberRow.role == role))).one()


async def user_tokens(session: AsyncSession, user_id: str) -> Sequence[TokenRow]:
    """The access tokens of a user."""
    return (await session.scalars(select(TokenRow).where(TokenRow.user_id == user_id))).all()


async def is_member(session: AsyncSession, project_id: str, user_id: str) -> bool:
    """Whether the user may use the project."""
    return await session.get(MemberRow, (project_id, user_id)) is not None
