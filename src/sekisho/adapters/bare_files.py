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
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Final

from sekisho.adapters.arrival import Arrivals, name_of
from sekisho.adapters.durable import write_file
from sekisho.adapters.hosts.bare import Left
from sekisho.adapters.hosts.rsync import Landing, Rsync
from sekisho.adapters.staging import collisions
from sekisho.adapters.walk import survey
from sekisho.domain.egress import Fault
from sekisho.domain.errors import IntegrityError, NotFound, StorageFull, UsageError
from sekisho.domain.files import Pattern, RelPath
from sekisho.domain.limits import MAX_DEPTH, MAX_FILES, MAX_TREE_BYTES, MIB
from sekisho.site.workplace import CollectCaps
from sekisho.transfer.holes import spares
from sekisho.transfer.port import Given
from sekisho.transfer.progress import Progress, unseen
from sekisho.transfer.remembered import Forgetful, Look, Remembered
from sekisho.transfer.source import LocalTree, Source
from sekisho.transfer.tree import Tree
from sekisho.wire.frames import Chunk, Sound

LOG_NAME: Final = RelPath.parse("remote_program_exec.log")
#: A log up to this size comes with one question; a longer one as a file.
SHORT_LOG_BYTES: Final = 128 << 10
_SPARE_BYTES: Final = 16 * MIB
_FORGETFUL: Final = Forgetful()
_CAPS: Final = CollectCaps(
    max_entries=2 * MAX_FILES,
    max_depth=MAX_DEPTH,
    max_name_bytes=64 * MIB,
    max_file_bytes=MAX_TREE_BYTES,
    max_seconds=3600,
)


@dataclass(frozen=True)
class Back:
    """What came back: its files with their chunks at hand, and what is wrong with it."""

    local: LocalTree
    faults: tuple[Fault, ...] = ()
    looks: Mapping[RelPath, Look] = field(default_factory=dict)  #: of the files, as they were read

    @property
    def tree(self) -> Tree:
        return self.local.tree

    def lacking(self, wanted: Sequence[tuple[RelPath, int]]) -> Back:
        """Return this with a fault for each file that was announced and did not come, or not all.

        What an interrupted transfer has left lies under the file's own name.
        """
        here = {file.path: file.size for file in self.tree.files}
        gone = [path for path, size in wanted if here.get(path, -1) < size]
        faults = [Fault("output.changed", (("output", str(path)),)) for path in gone]
        return replace(self, faults=(*self.faults, *faults))

    @cached_property
    def sources(self) -> Mapping[RelPath, Source]:
        """Where the files are."""
        return {source.path: source for source in self.local.sources}


@dataclass(frozen=True, slots=True)
class Quarantine:
    """The place of one job's files on this side, below its note; ``progress`` sees them come."""

    place: Path
    progress: Progress = unseen

    @property
    def work(self) -> Path:
        return self.place / "work"

    @property
    def passing(self) -> Path:
        """Where a file is while it comes."""
        return self.place / "coming"

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

    def prepare(self, wanted: Sequence[tuple[RelPath, int]]) -> None:
        """Make room for what comes. What a killed rsync had of a file is where rsync goes on."""
        self.work.mkdir(mode=0o700, exist_ok=True)
        self.passing.mkdir(mode=0o700, exist_ok=True)
        for left in self.passing.iterdir():
            named = [path for path, _ in wanted if path.parts[-1] == name_of(left.name)]
            place = self.work.joinpath(*named[0].parts) if len(named) == 1 else None
            if place is None or place.exists():
                left.unlink()
            else:
                place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                left.rename(place)

    def drop(self) -> None:
        """Remove what came back; the result is where the submitter wanted it."""
        if not self.place.exists():
            return
        with self.held():
            for folder in (self.work, self.passing, self.log.parent):
                with suppress(FileNotFoundError):
                    shutil.rmtree(folder)

    def look(self, faults: Sequence[Fault] = (), known: Remembered = _FORGETFUL) -> Back:
        """Return the plain files of the quarantine as a tree; other things stay behind.

        What is ``known`` of a file is not read again.
        """
        sources: list[Source] = []
        if self.work.is_dir():
            root = os.open(self.work, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                found = survey(root, _CAPS, time.monotonic).found
            finally:
                os.close(root)
            clashing = collisions([file.path for file in found])
            kept = [file.path for file in found if file.path not in clashing]
            sources = [Source(path, str(self.work.joinpath(*path.parts))) for path in kept]
        taken = {source.path.key for source in sources}
        if self.log.is_file() and LOG_NAME.key not in taken:
            sources.append(Source(LOG_NAME, str(self.log)))
        looks = {source.path: Look.of(source.file.stat()) for source in sources}
        return Back(LocalTree(sources, known), tuple(faults), looks)


def choose(left: Left, requested: Sequence[Pattern]) -> list[tuple[RelPath, int]]:
    """Return what was asked for of what is there; without a wish, everything."""
    if not requested:
        return list(left.files)
    return [(p, n) for p, n in left.files if any(wish.matches(p) for wish in requested)]


def missing(left: Left, requested: Sequence[Pattern]) -> list[Fault]:
    """Return a fault for each file that was asked for by name and is not there.

    And one for what nobody could look at: what is in there is not missing, it is unknown.
    """
    unread = () if left.whole else (Fault("output.unread"),)
    there = {str(path) for path, _ in left.files} | {str(LOG_NAME)}
    absent = sorted({wish.text for wish in requested if wish.literal} - there)
    return [*unread, *(Fault("output.missing", (("output", text),)) for text in absent)]


def bring(
    rsync: Rsync, source: str, left: Left, wanted: Sequence[tuple[RelPath, int]], to: Quarantine
) -> Remembered:
    """Bring the ``wanted`` files and a long log into the quarantine; raise StorageFull.

    May be repeated after any error; what has arrived is not sent again. Return what is known of
    the files by then.
    """
    names = [f"work/{path}" for path, _ in wanted]
    size = sum(n for _, n in wanted)
    if left.log_bytes > SHORT_LOG_BYTES:
        names.append("control/stdout")
        size += left.log_bytes
    if not names:
        return _FORGETFUL
    holes = sum(n - left.taken[path] for path, n in wanted if path in left.taken)
    free, needed = shutil.disk_usage(to.place).free, size - holes
    if needed + _SPARE_BYTES > free:
        raise StorageFull("fetch.disk_full", needed=needed, free=free)
    to.prepare(wanted)
    most = size + size // 8 + _SPARE_BYTES
    landing = Landing(
        place=to.place, passing=to.passing, max_bytes=most, sparse=spares(needed, size)
    )
    with Arrivals(to.passing, [(path.parts[-1], n) for path, n in wanted]) as arrivals:
        rsync.pull(source, names, landing, rising(size, to.progress))
    to.progress(size, size)
    return arrivals


def rising(total: int, progress: Progress) -> Callable[[int], None]:
    """Return who hears a program's counter, which may fall, and tells a ``progress`` that rises."""
    progress(0, total)
    highest = 0

    def report(moved: int) -> None:
        nonlocal highest
        highest = max(highest, min(moved, total))
        progress(highest, total)

    return report


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
        again: Callable[[Callable[[Back], bytes]], bytes],
        held: Callable[[], AbstractContextManager[None]],
    ) -> None:
        """``back`` returns what came back.

        ``again`` brings what of it is not there, and reads of it before others can take it away.
        ``held`` keeps them out of where it lies.
        """
        self._push = push
        self._links = links
        self._back = back
        self._again = again
        self._held = held

    def send_files(self, sources: Sequence[Source], progress: Progress) -> None:
        total = sum(source.file.stat().st_size for source in sources)
        self._link(sources)
        self._push(self._links, rising(total, progress))
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

    def fetch(self, chunks: Sequence[Chunk]) -> Iterator[Sound]:
        back = self._back()
        index = dict(back.tree.index())
        content = set(back.tree.chunks())
        for chunk in chunks:
            if chunk not in index and chunk not in content:
                raise NotFound("chunk.not_found")
            yield Sound((chunk, index[chunk] if chunk in index else self._read(chunk)))

    def _read(self, chunk: Chunk) -> bytes:
        try:
            return self._back().local.read(chunk)
        except (UsageError, IntegrityError):  # given away, or dropped by another process of ours
            return self._again(lambda back: _read(back, chunk))

    def give(self, path: RelPath, folder: int, name: str) -> Given:
        back = self._back()
        source = back.sources.get(path)
        if source is None:
            return Given.NOTHING
        try:
            with self._held():
                sound = Look.of(source.file.stat(follow_symlinks=False)) == back.looks.get(path)
                os.rename(source.file, name, dst_dir_fd=folder)
        except OSError:  # another file system, or gone: it is fetched
            return Given.NOTHING
        return Given.SOUND if sound else Given.UNSEEN


def _read(back: Back, chunk: Chunk) -> bytes:
    if chunk not in set(back.tree.chunks()):
        raise NotFound("chunk.not_found")
    return back.local.read(chunk)
