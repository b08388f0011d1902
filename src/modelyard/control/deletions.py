"""Deleting several resources in one request: each by its own rules, and told one by one.

All happens in one transaction, together with the `Idempotency-Key`: a client that lost the answer gets the same one again, and not a list of
things that are not there any more.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, cast

from sqlalchemy.ext.asyncio import AsyncSession

from modelyard.control.idempotency import claim, recall_answer, remember
from modelyard.kit.errors import Blocker, UserError
from modelyard.kit.ids import IdempotencyKey


@dataclass(frozen=True, slots=True)
class Deleted:
    """What became of one. `code` is 0 where it is deleted, and the error's code where it is not."""

    id: str
    code: int = 0
    message: str = "SUCCESS"
    blockers: Sequence[Blocker] = ()
    has_more_blockers: bool = False


async def delete_each(
    session: AsyncSession,
    project_id: str,
    kind: str,
    key: IdempotencyKey | None,
    ids: Sequence[str],
    delete: Callable[[AsyncSession, str], Awaitable[None]],
) -> Sequence[Deleted]:
    """Call `delete` for each id; it must look before it changes anything, and raise `UserError` where it refuses.

    The answer has the order of `ids`. Repeated ids are deleted once.
    """
    if await claim(session, project_id, f"{kind}-deletion", key) is not None:
        return [_read(item) for item in cast(list[dict[str, Any]], await recall_answer(session, project_id, key))]
    done: dict[str, Deleted] = {}
    for id in sorted(
        set(ids)
    ):  # always in the same order: two requests that name the same ones can't wait for each other
        try:
            await delete(session, id)
            done[id] = Deleted(id)
        except UserError as error:
            done[id] = Deleted(id, error.code, error.message, error.blockers, error.has_more_blockers)
    found = [done[id] for id in dict.fromkeys(ids)]
    remember(session, project_id, f"{kind}-deletion", key, "", answer=[asdict(item) for item in found])
    return found


def _read(item: dict[str, Any]) -> Deleted:
    return replace(Deleted(**item), blockers=tuple(Blocker(**blocker) for blocker in item["blockers"]))
