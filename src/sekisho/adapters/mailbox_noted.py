"""A mailbox that notes how the line is, for whoever asks about the agent from another process.

The note is a small file; it is information only, so it is neither synced nor ever a reason to fail,
and while all goes well it may be a second behind.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Final

import msgspec

from sekisho.domain.clock import Clock
from sekisho.domain.egress import Cleared
from sekisho.domain.errors import SekishoError
from sekisho.site.mailbox import Hold, LastWord, Mailbox, Step
from sekisho.site.workplace import Staged
from sekisho.transfer.tree import Tree
from sekisho.wire.envelope import TreeRef
from sekisho.wire.v1 import PollAnswer

_BEHIND_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LineNote:
    """How an agent's line to its broker is. ``code`` is why the last poll failed, if it did."""

    pid: int
    asked_at: datetime | None = None
    answered_at: datetime | None = None
    failed_at: datetime | None = None
    code: str | None = None


def read_note(file: Path) -> LineNote | None:
    """Return the note in ``file``; None when there is none that can be read."""
    try:
        return msgspec.json.decode(file.read_bytes(), type=LineNote)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return None


def write_note(file: Path, note: LineNote) -> None:
    fresh = file.with_name(f".note-{secrets.token_hex(4)}")
    with suppress(OSError):
        fresh.write_bytes(msgspec.json.encode(note))
        fresh.replace(file)


class NotedMailbox:
    """Passes everything on to ``inner``; notes when it asked and how it was answered.

    The first poll, and the first after a fault, does not wait: it is known at once how the line is.
    """

    def __init__(
        self, inner: Mailbox, clock: Clock, pid: int, note: Callable[[LineNote], None]
    ) -> None:
        self._inner = inner
        self._clock = clock
        self._tell = note
        self._note = LineNote(pid=pid)
        self._told: tuple[bool, str | None] | None = None  #: whether answered, and the fault
        self._told_at = 0.0

    async def poll(
        self,
        *,
        free: int,
        holds: Sequence[str],
        cancelling: Sequence[str],
        wait_s: float,
        coming: Sequence[str] | None = None,
    ) -> PollAnswer:
        if self._note.answered_at is None or self._note.code is not None:
            wait_s = 0.0
        self._noted(replace(self._note, asked_at=self._clock.now()))
        try:
            answer = await self._inner.poll(
                free=free, holds=holds, cancelling=cancelling, wait_s=wait_s, coming=coming
            )
        except SekishoError as error:
            self._noted(replace(self._note, failed_at=self._clock.now(), code=error.code))
            raise
        self._noted(replace(self._note, answered_at=self._clock.now(), code=None))
        return answer

    def _noted(self, note: LineNote) -> None:
        self._note = note
        now, news = self._clock.monotonic(), (note.answered_at is not None, note.code)
        if news != self._told or now - self._told_at >= _BEHIND_SECONDS:
            self._told, self._told_at = news, now
            self._tell(note)

    async def accept(self, hold: Hold) -> None:
        await self._inner.accept(hold)

    async def list_inputs(self, hold: Hold, ref: TreeRef) -> Tree:
        return await self._inner.list_inputs(hold, ref)

    async def fetch(self, hold: Hold, tree: Tree, directory: str, *, lasting: bool) -> None:
        await self._inner.fetch(hold, tree, directory, lasting=lasting)

    async def send(self, hold: Hold, staged: Cleared[Staged]) -> None:
        await self._inner.send(hold, staged)

    async def publish(self, hold: Hold, snapshot: Cleared[bytes]) -> None:
        await self._inner.publish(hold, snapshot)

    async def tell(self, hold: Hold, news: Cleared[tuple[Step, ...]] | Cleared[LastWord]) -> None:
        await self._inner.tell(hold, news)
