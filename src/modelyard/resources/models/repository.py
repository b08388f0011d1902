"""Queries on models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import delete, func, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncSession

from modelyard.kit.errors import Blocker
from modelyard.kit.paging import Page, PageRequest
from modelyard.resources.models.table import ModelAliasRow, ModelNameRow, ModelRow


@dataclass(frozen=True, slots=True)
class ModelFilter:
    """Which models; empty means all."""

    ids: Sequence[str] = ()
    names: Sequence[str] = ()
    versions: Sequence[int] = ()
    aliases: Sequence[str] = ()


async def by_id(session: AsyncSession, project_id: str, model_id: str) -> ModelRow | None:
    """A model of the project."""
    row = await session.get(ModelRow, model_id)
    return row if row is not None and row.project_id == project_id else None


async def held(session: AsyncSession, project_id: str, model_id: str) -> ModelRow | None:
    """Like `by_id`; until the transaction ends nobody else gets it so: what a guard has seen stays true."""
    row = await session.get(ModelRow, model_id, with_for_update=True)
    return row if row is not None and row.project_id == project_id else None


async def by_ids(session: AsyncSession, ids: Sequence[str]) -> Sequence[ModelRow]:
    """Several models."""
    if not ids:
        return ()
    return (await session.scalars(select(ModelRow).where(ModelRow.id.in_(ids)))).all()


async def by_key(session: AsyncSession, model_id: str) -> ModelRow | None:
    """A model, for the reconciler."""
    return await session.get(ModelRow, model_id)


async def next_version(session: AsyncSession, project_id: str, name: str) -> int:
    """The number of the next model of a name, counted in the caller's transaction."""
    is_sqlite = session.get_bind().dialect.name == "sqlite"
    insert = sqlite.insert if is_sqlite else postgresql.insert
    statement = insert(ModelNameRow).values(project_id=project_id, name=name, last_version=1)
    counted = statement.on_conflict_do_update(
        index_elements=["project_id", "name"], set_={"last_version": ModelNameRow.last_version + 1}
    )
    return int(await session.scalar(counted.returning(ModelNameRow.last_version)) or 1)


async def aliases_of(session: AsyncSession, ids: Sequence[str]) -> dict[str, list[str]]:
    """The aliases of models, by their ids."""
    found: dict[str, list[str]] = {}
    if ids:
        statement = select(ModelAliasRow).where(ModelAliasRow.model_id.in_(ids)).order_by(ModelAliasRow.alias)
        for row in await session.scalars(statement):
            found.setdefault(row.model_id, []).append(row.alias)
    return found


async def set_alias(session: AsyncSession, row: ModelRow, alias: str) -> None:
    """Let an alias of the model's name mean this model, whichever it meant before."""
    is_sqlite = session.get_bind().dialect.name == "sqlite"
    insert = sqlite.insert if is_sqlite else postgresql.insert
    statement = insert(ModelAliasRow).values(project_id=row.project_id, name=row.name, alias=alias, model_id=row.id)
    keys = ["project_id", "name", "alias"]
    await session.execute(statement.on_conflict_do_update(index_elements=keys, set_={"model_id": row.id}))


async def drop_aliases(session: AsyncSession, model_id: str, alias: str | None = None) -> int:
    """Take an alias (or all) away from a model; how many there were."""
    statement = delete(ModelAliasRow).where(ModelAliasRow.model_id == model_id)
    if alias is not None:
        statement = statement.where(ModelAliasRow.alias == alias)
    dropped = await session.scalars(statement.returning(ModelAliasRow.alias))
    return len(dropped.all())


async def of_training(session: AsyncSession, training_id: str, limit: int) -> Sequence[Blocker]:
    """Some models that were made from a training, oldest first."""
    statement = select(ModelRow.id, ModelRow.name).where(ModelRow.training_id == training_id)
    found = await session.execute(statement.order_by(ModelRow.id).limit(limit))
    return [Blocker("model", id, name) for id, name in found]


async def page(session: AsyncSession, project_id: str, wanted: ModelFilter, request: PageRequest) -> Page[ModelRow]:
    """Models of the project, newest first."""
    conditions = [ModelRow.project_id == project_id]
    if wanted.ids:
        conditions.append(ModelRow.id.in_(wanted.ids))
    if wanted.names:
        conditions.append(ModelRow.name.in_(wanted.names))
    if wanted.versions:
        conditions.append(ModelRow.version.in_(wanted.versions))
    if wanted.aliases:
        named = select(ModelAliasRow.model_id).where(
            ModelAliasRow.project_id == project_id, ModelAliasRow.alias.in_(wanted.aliases)
        )
        conditions.append(ModelRow.id.in_(named))
    counted = select(func.count(ModelRow.id)).where(*conditions)
    ordered = select(ModelRow).where(*conditions).order_by(ModelRow.id.desc())
    rows = (await session.scalars(ordered.limit(request.limit).offset(request.offset))).all()
    return Page(rows, await session.scalar(counted) or 0, request)
