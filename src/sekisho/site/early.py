"""Inputs that are fetched while their sender still sends: a head start that binds nobody.

Rule 1: a draft is looked at as an offer is. What the manifest does not allow is not fetched.
Rule 2: nothing is accepted, journaled or told. The offer comes later, and is decided afresh.
Rule 3: no more at a time than there are free slots; none while paused. What was fetched goes when
        its draft does, when the agent starts, and when staging has taken it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import anyio
import structlog
from anyio.abc import TaskGroup

from sekisho.domain.backoff import delay
from sekisho.domain.errors import (
    InvalidTransition,
    NotFound,
    SekishoError,
    StorageFull,
    Unavailable,
)
from sekisho.site.admission import admission
from sekisho.site.desk import Desk, Word
from sekisho.site.stock import lendable, without
from sekisho.transfer.tree import Tree
from sekisho.wire.envelope import TreeRef, open_request
from sekisho.wire.v1 import Coming, PollAnswer

#: The sender seems to have gone: what it sent may still be offered.
SILENT: Final = "early.silent"
_MOST: Final = 4  #: fetched at a time
_TRIES: Final = 8
_SETTLE_SECONDS: Final = 2.0
log = structlog.get_logger()


@dataclass(slots=True, eq=False)
class _Draft:
    coming: Coming
    over: bool = False  #: there is nothing more to fetch, or it is not to be fetched
    scope: anyio.CancelScope | None = None
    ended: anyio.Event = field(default_factory=anyio.Event)


class Early:
    """The drafts that one agent has heard of. Hears of none where the lane has none."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._drafts: dict[str, _Draft] = {}
        self._taken: dict[str, _Draft] = {}  #: those whose job is ours by now

    def heard(self) -> list[str] | None:
        """Return the drafts that need not be told again; None when none are to be told."""
        return None if self._desk.early is None else list(self._drafts)

    def taken(self, job: str) -> None:
        """Know that the job is ours: its draft is gone, but not what was fetched of it."""
        if draft := self._drafts.pop(job, None):
            self._taken[job] = draft

    async def clear(self) -> None:
        """Remove what an agent before us held."""
        await self._remove(None)

    async def settle(self, job: str) -> None:
        """End the fetch of ``job``: what is here by then is for staging to take."""
        draft = self._taken.get(job)
        if draft is not None and draft.scope is not None:
            with anyio.move_on_after(_SETTLE_SECONDS):  # the broker ends it: nobody's no longer
                await draft.ended.wait()
            await _stopped(draft)

    async def drop(self, job: str) -> None:
        """Let go of ``job`` and of what is held of it."""
        draft = self._taken.pop(job, None) or self._drafts.pop(job, None)
        if draft is not None:
            await self._let_go(draft)

    async def heed(self, group: TaskGroup, answer: PollAnswer, free: int) -> None:
        """Act on what a poll said of drafts. ``free`` slots: none while nothing is to be taken."""
        for job in answer.gone:
            if draft := self._drafts.pop(job, None):
                group.start_soon(self._let_go, draft)
        for coming in answer.coming:
            self._drafts.setdefault(coming.job, _Draft(coming))
        word = self._desk.word()
        for draft in self._drafts.values():
            self._look(group, draft, word, free)

    async def close(self) -> None:
        """End all fetches; what is held is removed."""
        for job in [*self._drafts]:
            await self.drop(job)

    def _look(self, group: TaskGroup, draft: _Draft, word: Word, free: int) -> None:
        """Begin with a draft, go on with it, or stop, as the manifest and the slots say now."""
        if draft.over:
            return
        ref = _allowed(word, draft.coming)
        if ref is None:
            draft.over = True
            group.start_soon(self._let_go, draft)
        elif draft.scope is None and self._under() < min(free, _MOST):
            draft.scope, draft.ended = anyio.CancelScope(), anyio.Event()
            group.start_soon(self._fetch, draft, ref, draft.scope)

    def _under(self) -> int:
        return sum(draft.scope is not None for draft in self._drafts.values())

    async def _fetch(self, draft: _Draft, ref: TreeRef, scope: anyio.CancelScope) -> None:
        coming = draft.coming
        try:
            with scope:
                log.info("early_fetch_began", job=coming.job)
                if not await self._tried(coming, ref):
                    await self._remove(coming.job)
                draft.over = True
        finally:
            draft.scope = None
            draft.ended.set()

    async def _tried(self, coming: Coming, ref: TreeRef) -> bool:
        """Fetch for as long as it helps to try again; say whether what is here may stay."""
        for failures in range(1, _TRIES):
            try:
                return await self._kept(coming, ref)
            except Unavailable as error:
                log.info("early_fetch_waits", job=coming.job, code=error.code)
                await self._desk.sleep(delay(failures, self._desk.roll()))
        return False

    async def _kept(self, coming: Coming, ref: TreeRef) -> bool:
        """Fetch; say whether what is here may stay, or raise Unavailable."""
        request = open_request(coming.request)

        def allow(tree: Tree) -> Tree:
            """Return what is to be fetched of ``tree``: what is in stock will be lent."""
            admitted = admission(self._desk.word(), coming.submitter, request, tree)
            if self._desk.stock is None:
                return tree
            shared = lendable(admitted.command, tree, clones=self._desk.stock.clones)
            files = [file for _, some in shared for file in some]
            return without(tree, self._desk.stock.has(coming.submitter, files))

        try:
            if self._desk.early is not None:
                await self._desk.early.fetch(coming, ref, allow)
        except (InvalidTransition, NotFound):
            return True  # it is offered, or gone: the next poll tells
        except SekishoError as error:
            if isinstance(error, Unavailable) and not isinstance(error, StorageFull):
                raise
            log.info("early_fetch_ended", job=coming.job, code=error.code)
            return error.code == SILENT
        except Exception:  # boundary: a head start is never a reason to stop the agent
            log.exception("early_fetch_crashed", job=coming.job)
            return False
        return True

    async def _let_go(self, draft: _Draft) -> None:
        await _stopped(draft)
        await self._remove(draft.coming.job)

    async def _remove(self, job: str | None) -> None:
        if self._desk.early is None:
            return
        try:
            await self._desk.early.drop(job)
        except SekishoError as error:
            log.warning("early_inputs_not_removed", job=job, code=error.code)


def _allowed(word: Word, coming: Coming) -> TreeRef | None:
    """Return the inputs of a draft that the manifest would let in, as far as is known yet."""
    try:
        request = open_request(coming.request)
        admission(word, coming.submitter, request, None)
    except SekishoError as reason:
        log.info("early_fetch_declined", job=coming.job, code=reason.code)
        return None
    return request.inputs


async def _stopped(draft: _Draft) -> None:
    if draft.scope is not None:
        draft.scope.cancel()
        await draft.ended.wait()
