"""What an agent remembers of jobs that it got from an old MInt broker: one directory for each.

Such a broker tells inputs and command once, and believes then that we have them. So both are on
disk before anything else is done; the note is written last and makes the directory count.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Final

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from sekisho.adapters.durable import sync, sync_directory, write_file
from sekisho.domain.errors import StorageFull, Unavailable
from sekisho.domain.files import RelPath
from sekisho.domain.ids import JOB_ID_PATTERN
from sekisho.transfer.spooled import SpooledTree
from sekisho.wire.mint_body import Piece

_NOTE: Final = "note.json"
_INPUTS: Final = "inputs"


class Kept(Struct, frozen=True, kw_only=True):
    """One job: the request that was made of it, where its inputs lie, what the broker heard."""

    job: str
    accept_id: str
    request: bytes
    inputs: dict[str, tuple[int, int]] = {}
    results: list[str] = []
    told: list[str] = []


class MintShelf:
    """Jobs in directories below ``folder``. Every method is synchronous."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def jobs(self) -> list[Kept]:
        """Return all that is kept whole."""
        return [kept for job in self._names() if (kept := self.get(job)) is not None]

    def begun(self) -> list[str]:
        """Return the jobs that were asked for and did not arrive whole: a cut line, or a crash."""
        return [job for job in self._names() if self.get(job) is None]

    def _names(self) -> list[str]:
        found = self._folder.iterdir() if self._folder.exists() else ()
        return sorted(place.name for place in found if re.fullmatch(JOB_ID_PATTERN, place.name))

    def get(self, job: str) -> Kept | None:
        with suppress(OSError, msgspec.MsgspecError):
            return msgspec.json.decode((self._folder / job / _NOTE).read_bytes(), type=Kept)
        return None

    @contextmanager
    def spool(self, job: str) -> Iterator[IO[bytes]]:
        """Give a file for the inputs of a new job; afterwards it is on disk."""
        place = self._folder / job
        try:
            place.mkdir(mode=0o700, parents=True, exist_ok=True)
            with (place / _INPUTS).open("w+b") as spool:
                yield spool
                spool.flush()
                sync(spool.fileno())
        except OSError as error:
            raise StorageFull("site.disk_full") from error

    def keep(self, kept: Kept) -> Kept:
        """Remember ``kept`` durably."""
        place = self._folder / kept.job
        try:
            write_file(place / _NOTE, msgspec.json.encode(kept))
            sync_directory(self._folder)
        except OSError as error:
            raise Unavailable("site.work_base", why=os.strerror(error.errno or 0)) from error
        return kept

    def told(self, kept: Kept, call: str) -> Kept:
        """Remember that the broker has heard ``call``."""
        return self.keep(replace(kept, told=[*kept.told, call]))

    @contextmanager
    def tree(self, kept: Kept) -> Iterator[SpooledTree]:
        """Give the inputs of a job."""
        with (self._folder / kept.job / _INPUTS).open("rb") as spool:
            pieces = {RelPath.parse(name): Piece(*where) for name, where in kept.inputs.items()}
            yield SpooledTree(spool, pieces)

    def forget(self, job: str) -> None:
        """Drop a job that nobody waits for any more. Idempotent."""
        place = self._folder / job
        (place / _NOTE).unlink(missing_ok=True)
        shutil.rmtree(place, ignore_errors=True)
