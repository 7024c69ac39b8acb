"""The site's log in a directory: one chain, a file for each month, one writer at a time.

Agents, carriers and whoever else records something append to the same chain, from their own
processes: an append holds the lock of the directory, and looks for the end of the chain anew when
somebody else has written.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec

from sekisho.adapters import durable
from sekisho.domain.errors import Corrupt
from sekisho.domain.sitelog import ORIGIN, Break, Kind, Link, Record, link, verify

_BLOCK: Final = 1 << 16
Write = Callable[[Path, bytes], None]


@dataclass(frozen=True, slots=True)
class _Entry:
    """What one thread wants to append; ``done`` is its last link, or why it was not added."""

    records: Sequence[Record]
    done: Future[Link] = field(default_factory=Future)


class DirectorySiteLog:
    """The log in ``folder``. ``write`` appends durably, and may make room first."""

    def __init__(self, folder: Path, write: Write = durable.append) -> None:
        self._folder = folder
        self._write = write
        self._guard = threading.Lock()
        self._waiting: deque[_Entry] = deque()  #: what threads bring; popped by who has the guard
        #: The file that held the end of the chain, its size then, the last number and digest.
        self._known: tuple[Path, int, int, str] | None = None

    def append(self, records: Sequence[Record]) -> Link:
        """Add ``records`` with one sync; return the last link, or raise OSError with none added.

        What threads bring while one of them waits for the disk shares the next sync.
        """
        entry = _Entry(records)
        self._waiting.append(entry)
        with self._guard:
            if not entry.done.done():
                together = [self._waiting.popleft() for _ in range(len(self._waiting))]
                self._append_all(together)
        return entry.done.result()

    def _append_all(self, entries: Sequence[_Entry]) -> None:
        """Add what ``entries`` bring; each is told its last link, or all why nothing was added."""
        try:
            with self._locked():
                links = self._append([entry.records for entry in entries])
        except BaseException as error:  # noqa: BLE001 raised by each thread that waits for it
            for entry in entries:
                entry.done.set_exception(error)
            return
        for entry, last in zip(entries, links, strict=True):
            entry.done.set_result(last)

    def _append(self, groups: Sequence[Sequence[Record]]) -> list[Link]:
        """Write ``groups`` of records; return the last link of each."""
        first = groups[0][0]
        seq, previous = self._head(first)
        lines: list[Link] = []
        ends: list[Link] = []
        for records in groups:
            for record in records:
                lines.append(link(record, seq=seq + 1, previous=previous))
                seq, previous = lines[-1].seq, lines[-1].digest
            ends.append(lines[-1])
        path = self._month_file(first)
        self._write(path, b"".join(one.line + b"\n" for one in lines))
        self._known = path, path.stat().st_size, seq, previous
        return ends

    @contextmanager
    def _locked(self) -> Iterator[None]:
        descriptor = os.open(self._folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _month_file(self, record: Record) -> Path:
        """Return the file of the record's month, or a later one that was begun by a wrong clock."""
        wanted = f"{record.at:%Y-%m}.jsonl"
        months = log_files(self._folder)
        return months[-1] if months and months[-1].name > wanted else self._folder / wanted

    def _head(self, first: Record) -> tuple[int, str]:
        """Return number and digest of the last record; cut off a torn one and say so."""
        months = log_files(self._folder)
        if not months:
            return 0, ORIGIN
        if self._known is not None and self._known[:2] == (months[-1], months[-1].stat().st_size):
            return self._known[2:]
        torn = _cut_torn(months[-1])
        ends = (_last_line(file) for file in reversed(months))
        last = next((line for line in ends if line is not None), None)
        head = (0, ORIGIN) if last is None else _number_and_digest(last)
        if not torn:
            return head
        record = Record(at=first.at, kind=Kind.RECOVERED, job="", facts={"bytes": torn})
        mended = link(record, seq=head[0] + 1, previous=head[1])
        self._write(months[-1], mended.line + b"\n")
        return mended.seq, mended.digest


def _cut_torn(file: Path) -> int:
    """Cut off what follows the last end of a line; return how many bytes that was."""
    size = file.stat().st_size
    whole = _end_of_line_before(file, size)
    if whole < size:
        os.truncate(file, whole)
    return size - whole


def _last_line(file: Path) -> bytes | None:
    """Return the last line of a file that ends with a line."""
    size = file.stat().st_size
    if size == 0:
        return None
    start = _end_of_line_before(file, size - 1)
    with file.open("rb") as lines:
        lines.seek(start)
        return lines.read(size - 1 - start)


def _end_of_line_before(file: Path, end: int) -> int:
    """Return where the last line that ends before ``end`` ends; 0: none does."""
    with file.open("rb") as lines:
        while end > 0:
            start = max(0, end - _BLOCK)
            lines.seek(start)
            found = lines.read(end - start).rfind(b"\n")
            if found >= 0:
                return start + found + 1
            end = start
    return 0


def _number_and_digest(line: bytes) -> tuple[int, str]:
    try:
        number = int(msgspec.json.decode(line)["seq"])
    except (msgspec.MsgspecError, KeyError, TypeError, ValueError) as error:
        raise Corrupt("site.log") from error
    return number, hashlib.sha256(line).hexdigest()


def log_files(folder: Path) -> list[Path]:
    """Return the files of a site's log in their order."""
    return sorted(folder.glob("[0-9][0-9][0-9][0-9]-[0-9][0-9].jsonl"))


def read_log(state: Path) -> Iterator[tuple[Path, bytes]]:
    """Return every line of the site's log below ``state``, with its file, oldest first."""
    for file, size in _whole_files(state / "log"):
        with file.open("rb") as lines:
            read = 0
            for line in lines:
                read += len(line)
                if read > size:
                    break  # added since
                yield file, line.rstrip(b"\n")


def _whole_files(folder: Path) -> list[tuple[Path, int]]:
    """Return the files with their sizes at a moment at which nobody was in the midst of a line."""
    with ExitStack() as held, suppress(OSError):  # no writer yet, or not ours to lock: as it is
        descriptor = os.open(folder / "lock", os.O_RDONLY | os.O_CLOEXEC)
        held.callback(os.close, descriptor)
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        return [(file, file.stat().st_size) for file in log_files(folder)]
    return [(file, file.stat().st_size) for file in log_files(folder)]


def verify_log(state: Path) -> tuple[Link | None, tuple[str, Break] | None]:
    """Return the last good link of the site's log and the first break, by file and line."""
    places = [(file.name, line) for file, line in read_log(state)]
    last, broken = verify(line for _, line in places)
    if broken is None:
        return last, None
    name = places[broken.line - 1][0]
    first = next(n for n, (file, _) in enumerate(places) if file == name)
    return last, (name, Break(broken.line - first, broken.why))
