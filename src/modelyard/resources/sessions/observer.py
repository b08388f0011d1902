"""Ends what people have open when their right to it is gone: signed out, revoked, expired, no member any more, password changed.

Whatever took the right away, and whether a server was there to see it, this looks at what is and makes it true.
"""

from __future__ import annotations

import asyncio
import logging

from modelyard.resources.sessions.access import Visits
from modelyard.resources.sessions.service import Sessions

log = logging.getLogger(__name__)

_HOUSEKEEPING_LOOKS = 600


class VisitObserver:
    """Looks at all visits again and again."""

    def __init__(self, visits: Visits, sessions: Sessions, *, poll_seconds: float = 1.0) -> None:
        self._visits = visits
        self._sessions = sessions
        self._poll_seconds = poll_seconds

    async def run(self) -> None:
        """Watch until cancelled."""
        looks_count = 0
        while True:
            try:
                ended_count = await self._visits.end_lost()
                if ended_count:
                    log.info("Ended %d visits whose right is gone", ended_count)
                if looks_count % _HOUSEKEEPING_LOOKS == 0:
                    await self._sessions.keep_house()
            except Exception:
                log.exception("Visits can't be looked at; trying again")
            looks_count += 1
            await asyncio.sleep(self._poll_seconds)
