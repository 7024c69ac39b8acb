"""What the runner needs of the place where a job computes: directories, and what may be taken out.

Rule 1: the job is dead before anything is collected; still, nothing here trusts what it left.
Rule 2: what leaves is a copy: first names and sizes are looked at, then the policy decides, then
        exactly what it released is copied out of the job's reach, and only that copy is read.
Rule 3: whatever is not plain is withheld with one word of `Why`, for the site's log alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from sekisho.domain.egress import Fault, Found, LogRule, Withheld
from sekisho.domain.files import RelPath
from sekisho.domain.limits import MAX_DEPTH, MAX_FILES, MAX_TREE_BYTES
from sekisho.domain.run import Run
from sekisho.transfer.tree import Tree
from sekisho.wire.frames import Chunk


class Why(StrEnum):
    """Why something in a work directory is withheld."""

    SYMLINK = "symlink"
    HARD_LINK = "hard_link"  #: the file has a second name, perhaps outside
    SPECIAL = "special"  #: FIFO, socket, device
    OTHER_DEVICE = "other_device"  #: on another file system or mount than the work directory
    OWNER = "owner"
    NAME = "name"  #: not a `RelPath`
    COLLISION = "collision"  #: two names that some file systems cannot tell apart
    TOO_DEEP = "too_deep"
    TOO_LARGE = "too_large"
    UNREADABLE = "unreadable"
    GONE = "gone"
    CHANGED = "changed"  #: it is not, or did not stay, what was seen when the policy decided


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """The directories of one attempt of one job: absolute paths.

    On the computing host: ``work_dir``, the command's; ``control_dir``, with the run latch, stdout,
    stderr and the exit record; beside it one like it for each of the steps `before` and `after`.
    On the agent's own: ``input_dir``, where inputs are fetched to, and ``staging_dir``, the copy of
    what leaves. With ``elements`` it is an array: each has a directory below ``control_dir``.
    """

    job: str
    attempt: int
    work_dir: str
    control_dir: str
    staging_dir: str
    input_dir: str
    elements: int | None = None

    def step_dir(self, step: str) -> str:
        """Return the control directory of the step ``before`` or ``after``."""
        return f"{self.control_dir.rpartition('/')[0]}/{step}"


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectCaps:
    """How much of what a job left is looked at, and copied. Checked before anything is read."""

    max_entries: int = MAX_FILES  #: names looked at, whatever they name
    max_name_bytes: int = 16 << 20  #: of all names looked at
    max_depth: int = MAX_DEPTH
    max_file_bytes: int = MAX_TREE_BYTES  #: apparent size; a larger file is withheld
    max_seconds: float = 60.0
    max_withheld: int = 1000  #: reasons that are listed one by one; the others are counted
    max_released_bytes: int = MAX_TREE_BYTES  #: of all that leaves


@dataclass(frozen=True, slots=True, kw_only=True)
class Collected:
    """What is in a work directory. With ``faults`` nothing is in ``found``: the job has failed."""

    found: tuple[Found, ...] = ()
    withheld: tuple[Withheld, ...] = ()
    unlisted: int = 0  #: withheld beyond ``max_withheld``
    faults: tuple[Fault, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Staged:
    """The copy of what leaves. ``read`` returns the verified bytes of one of the tree's chunks.

    ``seal`` names what ``read`` believes without hashing it again: a copy with another one than
    was recorded is another copy. ``faults`` name released files that could not be copied as they
    were when that was decided.
    """

    tree: Tree
    read: Callable[[Chunk], bytes] = field(repr=False)
    seal: str | None = None
    withheld: tuple[Withheld, ...] = ()
    faults: tuple[Fault, ...] = ()

    def recorded(self, run: Run) -> bool:
        """Say whether this is the copy that was recorded of ``run``."""
        return (self.tree.digest, self.seal) == (run.tree, run.seal)


class Room(Protocol):
    """Directories of jobs: their making and their end."""

    def place(self, job: str, attempt: int) -> Place:
        """Return where that attempt is, or would be. Looks at nothing."""
        ...

    def prepare(self, job: str, attempt: int) -> Place:
        """Make the attempt's directories, private to the site's user, and durable.

        ``control_dir`` is empty; in ``input_dir`` is at most what an interrupted fetch of the same
        inputs left, for it to go on. When a run latch was taken: Conflict
        (`site.attempt_started`), and nothing is touched.
        """
        ...

    def fill(self, place: Place) -> None:
        """Bring what was fetched into ``input_dir`` to ``work_dir``, verified, names and bits."""
        ...

    def purge(self, job: str) -> bool:
        """Remove all attempts of ``job``; say whether nothing is left. Removes nothing else."""
        ...


class Collector(Protocol):
    """What a dead job left behind, and copies of it."""

    def collect(self, place: Place) -> Collected:
        """Return the plain files of ``work_dir`` by name and size, and what is not plain.

        Never follows a link, leaves the directory, blocks, or reads content.
        """
        ...

    def glimpse(self, place: Place, files: Sequence[Found]) -> tuple[tuple[RelPath, bytes], ...]:
        """Return the bytes of ``files``, which are small, of a job that still runs.

        A file that is not as ``files`` says, or changes while it is read, is left out.
        """
        ...

    def stage(
        self, place: Place, release: Sequence[Found], logs: tuple[LogRule, LogRule] | None
    ) -> Staged:
        """Copy the released files, and the ends of stdout and stderr as their rules say; sync.

        Replaces what was staged before. A file that is no longer as ``release`` says is withheld.
        The logs of an array's elements leave as one, each behind a line with its number.
        """
        ...

    def staged(self, place: Place) -> Staged:
        """Return what `stage` copied, as after a restart; Corrupt when it is not there whole."""
        ...


class Workplace(Room, Collector, Protocol):
    """Directories of jobs. Synchronous: called in worker threads, for one job by one at a time.

    Every method may be repeated after any error or crash. Errors: StorageFull(`site.disk_full`);
    Unavailable when it may work later: (`site.work_base`) when the base is not there, not ours, or
    does not answer; they name no path and no content.
    """
