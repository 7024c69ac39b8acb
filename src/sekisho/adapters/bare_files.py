"""Files of a job at a bare site, on this side: what goes in, and what came back.

Rule 1: what comes back lands in a quarantine of our own and is looked at there like a job's work
        directory at a site: plain files with safe names only, no links, nothing outside.
Rule 2: from then on it is a tree with digests, fetched like any other; every chunk is verified.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sekisho.adapters.durable import write_file
from sekisho.adapters.hosts.bare import Left
from sekisho.adapters.hosts.rsync import Rsync
from sekisho.adapters.staging import collisions
from sekisho.adapters.walk import survey
from sekisho.domain.egress import Fault
from sekisho.domain.errors import NotFound, StorageFull
from sekisho.domain.files import Pattern, RelPath
from sekisho.domain.limits import MAX_DEPTH, MAX_FILES, MAX_TREE_BYTES, MIB
from sekisho.site.workplace import CollectCaps
from sekisho.transfer.progress import Progress
from sekisho.transfer.source import LocalTree, Source
from sekisho.transfer.tree import Tree
from sekisho.wire.frames import Chunk

LOG_NAME: Final = RelPath.parse("remote_program_exec.log")
#: A log up to this size comes with one question; a longer one as a file.
SHORT_LOG_BYTES: Final = 128 << 10
_SPARE_BYTES: Final = 16 * MIB
_CAPS: Final = CollectCaps(
    max_entries=2 * MAX_FILES,
    max_depth=MAX_DEPTH,
    max_name_bytes=64 * MIB,
    max_file_bytes=MAX_TREE_BYTES,
    max_seconds=3600,
)


@dataclass(frozen=True, slots=True)
class Back:
    """What came back: its files with their chunks at hand, and what is wrong with it."""

    local: LocalTree
    faults: tuple[Fault, ...] = ()

    @property
    def tree(self) -> Tree:
        return self.local.tree

    def lacking(self, wanted: Sequence[RelPath]) -> Back:
        """Return this with a fault for each file that was announced and then did not come."""
        here = {file.path for file in self.tree.files}
        gone = [path for path in wanted if path not in here]
        faults = [Fault("output.changed", (("output", str(path)),)) for path in gone]
        return Back(self.local, (*self.faults, *faults))


@dataclass(frozen=True, slots=True)
class Quarantine:
    """The place of one job's files on this side, below its note."""

    place: Path

    @property
    def work(self) -> Path:
        return self.place / "work"

    @property
    def log(self) -> Path:
        return self.place / "control" / "stdout"

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep other processes of ours out of it."""
        self.place.mkdir(mode=0o700, exist_ok=True)
        fd = os.open(self.place / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    def drop(self) -> None:
        """Remove what came back; the result is where the submitter wanted it."""
        with suppress(FileNotFoundError):
            shutil.rmtree(self.place)

    def look(self, faults: Sequence[Fault] = ()) -> Back:
        """Return the plain files of the quarantine as a tree; other things stay behind."""
        sources: list[Source] = []
        if self.work.is_dir():
            root = os.open(self.work, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                found = survey(root, _CAPS, time.monotonic).found
            finally:
                os.close(root)
            clashing = collisions([file.path for file in found])
            kept = [file.path for file in found if file.path not in clashing]
            sources = [Source(path, self.work.joinpath(*path.parts)) for path in kept]
        taken = {source.path.key for source in sources}
        if self.log.is_file() and LOG_NAME.key not in taken:
            sources.append(Source(LOG_NAME, self.log))
        return Back(LocalTree(sources), tuple(faults))


def choose(left: Left, requested: Sequence[Pattern]) -> list[tuple[RelPath, int]]:
    """Return what was asked for of what is there; without a wish, everything."""
    if not requested:
        return list(left.files)
    return [(p, n) for p, n in left.files if any(wish.matches(p) for wish in requested)]


def missing(left: Left, requested: Sequence[Pattern]) -> list[Fault]:
    """Return a fault for each file that was asked for by name and is not there."""
    there = {str(path) for path, _ in left.files} | {str(LOG_NAME)}
    absent = sorted({wish.text for wish in requested if wish.literal} - there)
    return [Fault("output.missing", (("output", text),)) for text in absent]


def bring(
    rsync: Rsync, source: str, left: Left, wanted: Sequence[tuple[RelPath, int]], to: Quarantine
) -> None:
    """Bring the ``wanted`` files and a long log into the quarantine; raise StorageFull.

    May be repeated after any error; what has arrived is not sent again.
    """
    names = [f"work/{path}" for path, _ in wanted]
    size = sum(n for _, n in wanted)
    if left.log_bytes > SHORT_LOG_BYTES:
        names.append("control/stdout")
        size += left.log_bytes
    if not names:
        return
    free = shutil.disk_usage(to.place).free
    if size + _SPARE_BYTES > free:
        raise StorageFull("fetch.disk_full", needed=size, free=free)
    to.work.mkdir(mode=0o700, exist_ok=True)
    rsync.pull(source, names, to.place, lambda _n: None, max_bytes=size + size // 8 + _SPARE_BYTES)


def keep_log(to: Quarantine, data: bytes) -> None:
    """Put a short log where a long one would arrive."""
    to.log.parent.mkdir(mode=0o700, exist_ok=True)
    write_file(to.log, data)


class BareFiles:
    """The port of one job: its inputs by rsync, its outputs out of the quarantine."""

    def __init__(
        self,
        push: Callable[[Path, Callable[[int], None]], None],
        links: Path,
        back: Callable[[], Back],
    ) -> None:
        self._push = push
        self._links = links
        self._back = back

    def send_files(self, sources: Sequence[Source], progress: Progress) -> None:
        total = sum(source.file.stat().st_size for source in sources)
        progress(0, total)
        self._link(sources)
        highest = 0

        def report(moved: int) -> None:
            nonlocal highest
            highest = max(highest, min(moved, total))
            progress(highest, total)

        self._push(self._links, report)
        shutil.rmtree(self._links)
        progress(total, total)

    def _link(self, sources: Sequence[Source]) -> None:
        """Lay the files out under the names that they shall have there, as links."""
        with suppress(FileNotFoundError):
            shutil.rmtree(self._links)
        self._links.mkdir(mode=0o700)
        for source in sources:
            name = self._links.joinpath(*source.path.parts)
            name.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            name.symlink_to(source.file.absolute())

    def fetch(self, chunks: Sequence[Chunk]) -> Iterator[tuple[Chunk, bytes]]:
        back = self._back()
        index = dict(back.tree.index())
        content = set(back.tree.chunks())
        for chunk in chunks:
            if chunk not in index and chunk not in content:
                raise NotFound("chunk.not_found")
            yield chunk, index[chunk] if chunk in index else back.local.read(chunk)
