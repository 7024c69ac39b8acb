"""Licences of programs: a command that needs one waits at the site until its probe says it is free.

The probe is the site's own program. Whatever it does but exit with 0 means that none is free.
"""

from __future__ import annotations

from typing import Final

import anyio
import structlog

from sekisho.domain.errors import SekishoError
from sekisho.domain.manifest import Command
from sekisho.site.desk import Desk

#: How long an answer holds. A program also needs that long to take the licence that was free.
HOLD_SECONDS: Final = 5.0
PROBE_SECONDS: Final = 30.0
log = structlog.get_logger()


class Licences:
    """Asks for licences: one probe at a time, one start for each good answer."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._turn = anyio.Lock()
        self._held: dict[str, float] = {}  #: by command: until when not to ask again

    async def free(self, command: Command) -> bool:
        """Say whether ``command`` may start now, as far as licences go."""
        if not command.licence:
            return True
        async with self._turn:
            now = self._desk.clock.monotonic()
            if now < self._held.get(command.name, 0.0):
                return False
            free = await self._probed(command)
            self._held[command.name] = self._desk.clock.monotonic() + HOLD_SECONDS
            return free

    async def _probed(self, command: Command) -> bool:
        try:
            host = self._desk.hosts(command.venue.host)
            answer = await host.run(command.licence, timeout_s=PROBE_SECONDS)
        except SekishoError as error:
            log.warning("licence_unknown", command=command.name, code=error.code)
            return False
        if answer.code != 0:
            log.info("licence_not_free", command=command.name, status=answer.code)
        return answer.code == 0
