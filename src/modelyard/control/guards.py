"""Deletion rules across resources, without the lower one knowing the higher.

A model must not be deleted while an endpoint uses it, but models don't know endpoints. So a service that deletes holds a list of guards; the
composition root fills it with functions of the resources above.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from sqlalchemy.ext.asyncio import AsyncSession

DeletionGuard = Callable[[AsyncSession, str], Awaitable[None]]
"""Given the id of what is to be deleted, raises `Conflict` with the names of what stands in the way."""
