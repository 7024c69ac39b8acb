"""Uses of the old MInt paths, written down some seconds later: many calls for one commit each side.

A crash loses the last counts. Notes of jobs are not deferred.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

from sekisho.broker.ports import MintNotes, MintUse


class DeferredMintUses:
    """Implements `broker.ports.MintNotes` over ``inner``. `flush` writes the uses down."""

    def __init__(self, inner: MintNotes) -> None:
        self._inner = inner
        self._lock = threading.Lock()
        self._open: dict[tuple[str, str], MintUse] = {}

    def note(self, job_id: str) -> bytes | None:
        return self._inner.note(job_id)

    def change(self, job_id: str, decide: Callable[[bytes | None], bytes]) -> None:
        self._inner.change(job_id, decide)

    def used(self, site: str, side: str, *, calls: int, at: datetime) -> None:
        use = MintUse(site=site, side=side, calls=calls, last_at=at)
        with self._lock:
            before = self._open.get((site, side))
            self._open[site, side] = _together(before, use) if before else use

    def uses(self) -> list[MintUse]:
        self.flush()
        return self._inner.uses()

    def flush(self) -> None:
        """Write down what is not written yet; what could not be written stays open."""
        with self._lock:
            open_, self._open = self._open, {}
        for key, use in list(open_.items()):
            try:
                self._inner.used(use.site, use.side, calls=use.calls, at=use.last_at)
            except BaseException:
                self._give_back(open_)
                raise
            del open_[key]

    def _give_back(self, unwritten: dict[tuple[str, str], MintUse]) -> None:
        with self._lock:
            for key, use in unwritten.items():
                later = self._open.get(key)
                self._open[key] = _together(use, later) if later else use


def _together(first: MintUse, later: MintUse) -> MintUse:
    return replace(later, calls=first.calls + later.calls)
