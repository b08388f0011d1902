"""The caches of an installation, for its command line: looked at and pruned without asking the server."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

from modelyard.compute.backends.local.caches import CacheKind, Caches, Item
from modelyard.db.engine import Database, sqlite_url
from modelyard.resources.workloads.service import environments_needed
from modelyard.server.home import Home, HomeUnusable
from modelyard.server.local_compute import make_compute
from modelyard.server.settings import load_settings

__all__ = ["HomeCaches", "Item"]


class HomeCaches:
    """The caches of the platform in a home, whether it runs or not. Raises `HomeUnusable` where there is none."""

    def __init__(self, root: Path) -> None:
        self._home = Home(root)
        if not self._home.compute.is_dir():
            raise HomeUnusable(
                f"there is no platform in {root}; name its home with --home, or start it with 'modelyard up'"
            )
        self._settings = load_settings(self._home.config_file, {})
        _, environments = make_compute(self._home, self._settings)
        self._caches = Caches(self._home.compute, environments)

    def list(self) -> Sequence[Item]:
        """Everything that is kept."""
        return self._caches.list(asyncio.run(self._needed()))

    def prune(self, kinds: Sequence[str], unused_seconds: float, *, is_dry: bool) -> Sequence[Item]:
        """Remove what was not used for so long; what went, or would go."""
        wanted = [CacheKind(kind) for kind in kinds]
        return self._caches.prune(wanted, unused_seconds, asyncio.run(self._needed()), is_dry=is_dry)

    async def _needed(self) -> set[str]:
        """Environments of workloads that have not ended: what waits for room is in no record of compute yet."""
        if self._settings.database_url is None and not self._home.database_file.exists():
            return set()
        database = Database(self._settings.database_url or sqlite_url(self._home.database_file))
        try:
            return await environments_needed(database)
        finally:
            await database.close()
