"""Work directories on this machine: `<base>/<job>/<attempt>/{work,control,before,after,staging}`.

Every directory below the base is private to the site's user, and reached from the base by held
descriptors only. The job runs as the same user, so whatever is in there may have been replaced.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final

from sekisho.adapters.durable import sync
from sekisho.adapters.removal import remove
from sekisho.adapters.seal import Seals
from sekisho.adapters.staging import Copy, Copying, Tail, read_list, read_seals
from sekisho.adapters.walk import Folders, Unsafe, opened_directory, origin_of, read_plain, survey
from sekisho.domain.egress import STDERR_NAME, STDOUT_NAME, Fault, Found, LogRule, Withheld
from sekisho.domain.errors import Conflict, Corrupt, StorageFull, Unavailable
from sekisho.domain.files import RelPath
from sekisho.domain.ids import JOB_ID_PATTERN, check_job_id
from sekisho.site.workplace import CollectCaps, Collected, Place, Staged
from sekisho.transfer.holes import extents
from sekisho.transfer.place import no_room
from sekisho.transfer.tree import Tree

WORK: Final = "work"
CONTROL: Final = "control"
STEPS: Final = ("before", "after")
STAGING: Final = "staging"
EARLY: Final = ".early"  #: in the base of all jobs; no name of a job begins with a dot
LATCH: Final = "latch"
_LOGS: Final = (("stdout", RelPath.parse(STDOUT_NAME)), ("stderr", RelPath.parse(STDERR_NAME)))
_NO_CAPS: Final = CollectCaps()


class LocalWorkplace:
    """`Workplace` in a directory of this machine. ``spare_bytes`` of its disk stay free.

    ``settle_s`` is how far apart the file system can tell two changes of a file: 10 ms is the
    coarsest clock of a Linux kernel; a network file system may need a second.
    """

    def __init__(
        self,
        base: Path,
        *,
        caps: CollectCaps = _NO_CAPS,
        spare_bytes: int = 64 << 20,
        settle_s: float = 0.01,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._base = base.absolute()
        self._caps = caps
        self._spare_bytes = spare_bytes
        self._settle_s = settle_s
        self._monotonic = monotonic

    def place(self, job: str, attempt: int) -> Place:
        here = self._base / check_job_id(job) / str(attempt)
        return Place(
            job=job,
            attempt=attempt,
            work_dir=str(here / WORK),
            control_dir=str(here / CONTROL),
            staging_dir=str(here / STAGING),
            input_dir=str(here / WORK),
        )

    def prepare(self, job: str, attempt: int) -> Place:
        place = self.place(job, attempt)
        with self._opened_base() as base:
            self._check_room(base, 0)
            with _made(base, job) as above, _made(above, str(attempt)) as here:
                _check_latch(here)
                remove(base, here, CONTROL)
                os.mkdir(CONTROL, 0o700, dir_fd=here)
                for step in STEPS:
                    with suppress(FileExistsError):
                        os.mkdir(step, 0o700, dir_fd=here)
                with _made(here, WORK):
                    sync(here)
                # up to the base: a latch that a power cut takes away would allow a second run
                sync(above)
            sync(base)
        return place

    def fill(self, place: Place) -> None:
        """They are there already: `input_dir` is `work_dir`."""

    def collect(self, place: Place) -> Collected:
        with self._opened_base() as base:
            try:
                with _opened(base, place, WORK) as work:
                    return survey(work, self._caps, self._monotonic)
            except Unsafe as unsafe:  # the job has removed or replaced its own directory
                return Collected(withheld=(Withheld(".", unsafe.why.value),))

    def glimpse(self, place: Place, files: Sequence[Found]) -> tuple[tuple[RelPath, bytes], ...]:
        seen = []
        with self._opened_base() as base, _opened(base, place, WORK) as work:
            origin = origin_of(work)
            with Folders(work) as folders:
                for found in files:
                    with suppress(Unsafe):
                        data = read_plain(folders, found, origin, self._settle_s)
                        seen.append((found.path, data))
        return tuple(seen)

    def stage(
        self, place: Place, release: Sequence[Found], logs: tuple[LogRule, LogRule] | None
    ) -> Staged:
        tails = [
            Tail(name, path, rule.max_bytes, place.elements)
            for (name, path), rule in zip(_LOGS, logs or (), strict=False)
            if rule.release
        ]
        over = self.over(release)
        with self._opened_base() as base, _opened(base, place) as here:
            remove(base, here, STAGING)
            self._check_copy(base, here, release, sum(tail.max_bytes for tail in tails))
            if over or not (release or tails):
                return self._as_staged(place, Tree(), Seals({}), faults=over)
            os.mkdir(STAGING, 0o700, dir_fd=here)
            with (
                self._roomy(base, here),
                opened_directory(STAGING, here) as staging,
                Copying(staging, self._settle_s) as copying,
            ):
                copying.add_tails(here, CONTROL, tails)
                copying.add_files(here, WORK, release)
                tree, seals = copying.finish()
            os.fsync(here)
        return self._as_staged(place, tree, seals, copying.withheld, copying.faults)

    def staged(self, place: Place) -> Staged:
        with self._opened_base() as base, _opened(base, place, STAGING) as staging:
            tree, seals = read_list(staging), read_seals(staging)
        return self._as_staged(place, tree, seals)

    def purge(self, job: str) -> bool:
        with self._opened_base() as base:
            return remove(base, base, check_job_id(job))

    def jobs(self) -> list[str]:
        """Return the jobs that have a directory, in the order of their making."""
        with self._opened_base() as base, os.scandir(base) as entries:
            return sorted(e.name for e in entries if re.fullmatch(JOB_ID_PATTERN, e.name))

    def early(self, job: str) -> Path:
        """Return the folder of what is fetched for ``job`` before it is ours, made if need be."""
        with (
            self._opened_base() as base,
            _made(base, EARLY) as above,
            _made(above, check_job_id(job)),
        ):
            return self._base / EARLY / job

    def drop_early(self, job: str | None) -> None:
        """Remove what was fetched early, for ``job`` or, as after a crash, for all."""
        with self._opened_base() as base:
            if job is None:
                remove(base, base, EARLY)
                return
            with _made(base, EARLY) as above:
                remove(base, above, check_job_id(job))

    def free_bytes(self) -> int:
        """Return how much room there is for jobs."""
        with self._opened_base() as base:
            room = os.fstatvfs(base)
            return max(0, room.f_bavail * room.f_frsize - self._spare_bytes)

    def check_room(self, needed: int) -> None:
        """Raise StorageFull when there is no room for so many bytes."""
        with self._opened_base() as base:
            self._check_room(base, needed)

    def _as_staged(
        self,
        place: Place,
        tree: Tree,
        seals: Seals,
        withheld: Sequence[Withheld] = (),
        faults: Sequence[Fault] = (),
    ) -> Staged:
        @contextmanager
        def opened() -> Iterator[int]:
            with self._opened_base() as base, _opened(base, place, STAGING) as staging:
                yield staging

        return Staged(
            tree=tree,
            read=Copy.of(tree, seals, opened).read,
            seal=seals.digest,
            withheld=tuple(withheld),
            faults=tuple(faults),
        )

    def over(self, release: Sequence[Found]) -> tuple[Fault, ...]:
        """Return what is wrong with all that would leave, taken together."""
        total, limit = sum(f.size for f in release), self._caps.max_released_bytes
        return (Fault("output.over", (("limit", limit),)),) if total > limit else ()

    def _check_copy(self, base: int, here: int, release: Sequence[Found], tails: int) -> None:
        """Raise StorageFull unless there is room for a copy; holes are looked for if need be."""
        try:
            self._check_room(base, tails + sum(found.size for found in release))
        except StorageFull:
            with opened_directory(WORK, here) as work:
                self._check_room(base, tails + sum(_written(work, release)))

    @contextmanager
    def _roomy(self, base: int, here: int) -> Iterator[None]:
        """Remove a copy for which there was no room after all: others need what it takes."""
        try:
            yield
        except OSError as error:
            if no_room(error):
                remove(base, here, STAGING)
            raise

    def _check_room(self, base: int, needed: int) -> None:
        room = os.fstatvfs(base)
        if room.f_bavail * room.f_frsize < needed + self._spare_bytes:
            raise StorageFull("site.disk_full")

    @contextmanager
    def _opened_base(self) -> Iterator[int]:
        """Open the base, making it when only it is missing; translate what the disk says."""
        with _translated():
            with suppress(FileExistsError):
                self._base.mkdir(mode=0o700)
            fd = os.open(self._base, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                seen = os.fstat(fd)
                if seen.st_uid != os.geteuid() or stat.S_IMODE(seen.st_mode) & 0o022:
                    raise Unavailable("site.work_base", why="owner")
                yield fd
            finally:
                os.close(fd)


@contextmanager
def _opened(base: int, place: Place, *below: str) -> Iterator[int]:
    """Open a directory of ``place`` from the base on; raise Unsafe when it was replaced."""
    with ExitStack() as stack:
        here = base
        for name in (place.job, str(place.attempt), *below):
            here = stack.enter_context(opened_directory(name, here))
        yield here


def _written(work: int, release: Sequence[Found]) -> Iterator[int]:
    """Return how many bytes a copy of each file writes: its holes stay holes."""
    origin = origin_of(work)
    with Folders(work) as folders:
        for found in release:
            with suppress(Unsafe), folders.opened(found.path, origin, 0) as (fd, _):
                yield sum(end - start for start, end in extents(fd, 0, found.size))


@contextmanager
def _made(parent: int, name: str) -> Iterator[int]:
    """Open the directory ``name`` in ``parent``, making it when it is not there."""
    with suppress(FileExistsError):
        os.mkdir(name, 0o700, dir_fd=parent)
    with opened_directory(name, parent) as fd:
        yield fd


def _check_latch(here: int) -> None:
    """Raise Conflict when something was started: the command, an element of it, or a step."""
    for name in (CONTROL, *(f"{CONTROL}/{number}" for number in _elements(here)), *STEPS):
        with suppress(FileNotFoundError, NotADirectoryError):
            os.stat(f"{name}/{LATCH}", dir_fd=here, follow_symlinks=False)
            raise Conflict("site.attempt_started")


def _elements(here: int) -> list[str]:
    """Return the directories of an array's elements, if there is a control directory."""
    with (
        suppress(Unsafe),
        opened_directory(CONTROL, here) as control,
        os.scandir(control) as entries,
    ):
        return [entry.name for entry in entries if entry.name.isdigit()]
    return []


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except Unsafe as unsafe:
        raise Corrupt("site.work_changed", why=unsafe.why.value) from unsafe
    except OSError as error:
        if no_room(error):
            raise StorageFull("site.disk_full") from error
        why = errno.errorcode.get(error.errno or 0, "unknown")
        raise Unavailable("site.work_base", why=why) from error
