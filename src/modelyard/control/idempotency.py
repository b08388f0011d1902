"""Creating once, however often the request comes.

A client that lost the answer sends its request again with the same `Idempotency-Key`. The key is written in the transaction that creates the
resource, so that both are there or neither is; asked again, the same resource comes back, and another body under the same key is refused.
Source: the IETF draft "The Idempotency-Key HTTP Header Field".
"""

from __future__ import annotations

from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from modelyard.control.tables import IdempotencyRow
from modelyard.control.turns import take_turn
from modelyard.kit.clock import utc_now
from modelyard.kit.errors import Conflict
from modelyard.kit.ids import IdempotencyKey


class KeyReused(Conflict):
    """The key was used for another request."""

    code = 409002

    def __init__(self, key: str) -> None:
        super().__init__(
            f"the Idempotency-Key '{key}' was used for another request; use a new key for each new request"
        )


async def recall(session: AsyncSession, project_id: str, kind: str, key: IdempotencyKey | None) -> str | None:
    """The id of the resource that the key has created, if it has. Raises `KeyReused`."""
    if key is None:
        return None
    row = await session.get(IdempotencyRow, (project_id, key.value))
    if row is None:
        return None
    if row.kind != kind or row.request_digest != key.request_digest:
        raise KeyReused(key.value)
    return row.resource_id


async def claim(session: AsyncSession, project_id: str, kind: str, key: IdempotencyKey | None) -> str | None:
    """Like `recall`, at the beginning of the transaction that creates: two requests with one key don't pass here side by side."""
    if key is not None:
        await take_turn(session, "idempotency", project_id, key.value)
    return await recall(session, project_id, kind, key)


async def recall_answer(session: AsyncSession, project_id: str, key: IdempotencyKey | None) -> Any:
    """The answer that was written down with the key."""
    row = None if key is None else await session.get(IdempotencyRow, (project_id, key.value))
    return None if row is None else row.answer


def remember(
    session: AsyncSession,
    project_id: str,
    kind: str,
    key: IdempotencyKey | None,
    resource_id: str,
    *,
    answer: Any = None,
) -> None:
    """Write down what the key has created, in the same transaction; with the answer, where it can't be made again."""
    if key is not None:
        session.add(
            IdempotencyRow(
                project_id=project_id,
                key=key.value,
                kind=kind,
                request_digest=key.request_digest,
                resource_id=resource_id,
                answer=answer,
                created_at=utc_now(),
            )
        )
