"""Beside a running command: look at what its manifest lets be published, and show what is new.

A snapshot is worth nothing once there is a newer one: what cannot be sent is not sent again.
"""

from __future__ import annotations

import structlog

from sekisho.domain.egress import PublishRule
from sekisho.domain.errors import SekishoError, SyncFailed
from sekisho.domain.files import Pattern
from sekisho.domain.run import Run
from sekisho.site.desk import Control, Desk, at_workplace
from sekisho.site.release import Release
from sekisho.site.shown import NOTHING, Shown, look
from sekisho.wire.envelope import open_request

log = structlog.get_logger()


class Publisher:
    """Shows running commands, each for itself."""

    def __init__(self, desk: Desk, release: Release) -> None:
        self._desk = desk
        self._release = release

    async def follow(self, control: Control) -> None:
        """Show the command that ``control`` carries until it ends; at once done if it may not be.

        The manifest may change meanwhile; it is asked before each look.
        """
        await control.begun.wait()
        last = NOTHING
        while not control.over and (run := control.running) is not None:
            rule = self._rule(run)
            if rule is None:
                return
            await self._desk.sleep(rule.every.total_seconds())
            try:
                last = await self._show(run, control, last)
            except SyncFailed:
                raise
            except SekishoError as error:
                log.info("not_published", job=run.job, epoch=run.epoch, code=error.code)

    async def _show(self, run: Run, control: Control, last: Shown) -> Shown:
        async with control.looking:
            rule = self._rule(run)
            if control.over or rule is None:
                return last
            shown = await at_workplace(run, self._look, run, rule)
        if shown != last:
            await self._release.publish(run, shown)
        return shown

    def _rule(self, run: Run) -> PublishRule | None:
        command = self._desk.word().command(run)
        return command.publish if command else None

    def _look(self, run: Run, rule: PublishRule) -> Shown:
        requested = [Pattern(text) for text in open_request(run.request).outputs]
        return look(self._desk.workplace(run), self._desk.place(run), rule, requested)
