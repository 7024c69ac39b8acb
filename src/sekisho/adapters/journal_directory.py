"""Journal in a directory: one file for each run, the site's log by month, one owner at a time.

<state>/lock            held while an agent runs; its content is the agent's process id
<state>/runs/JOB.json   what is remembered of a job
<state>/forgotten       ids of jobs whose run was dropped, one a line: never to be started again
<state>/log/2026-11.jsonl   the chain of records, continued from month to month
<state>/reserve         space given up when the disk is full, so that the end can still be written
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec

from sekisho.adapters import durable
from sekisho.domain.errors import Conflict, Corrupt
from sekisho.domain.ids import check_job_id
from sekisho.domain.limits import MIB
from sekisho.domain.run import Run
from sekisho.domain.sitelog import ORIGIN, Break, Kind, Link, Record, link, verify

RESERVE_BYTES: Final = MIB


class DirectoryJournal:
    """Journal below ``state``. Make one to read; `lock` it before writing."""

    def __init__(self, state: Path) -> None:
        self._state = state
        self._runs = state / "runs"
        self._forgotten_file = state / "forgotten"
        self._log = state / "log"
        self._lock_file: int | None = None
        self._guard = threading.Lock()
        self._head: tuple[int, str] | None = None
        self._forgotten: set[str] = set()

    def lock(self) -> None:
        """Become the only writer, or raise Conflict; mend what a crash left, and learn the past."""
        for folder in (self._state, self._runs, self._log):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(self._state / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(descriptor)
            raise Conflict("agent.running") from error
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
        self._lock_file = descriptor
        for folder in (self._state, self._runs):
            for leftover in folder.glob(f"{durable.TEMPORARY}*"):
                leftover.unlink(missing_ok=True)
        self._forgotten = self._read_forgotten()
        self._keep_reserve()

    def unlock(self) -> None:
        if self._lock_file is not None:
            os.close(self._lock_file)
            self._lock_file = None

    def owner(self) -> int | None:
        """Return the process id of the agent that holds the lock; None: no agent runs."""
        try:
            descriptor = os.open(self._state / "lock", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            text = os.read(descriptor, 32).decode("ascii", "replace").strip()
            return int(text) if text.isdigit() else None
        finally:
            os.close(descriptor)
        return None

    def runs(self) -> list[Run]:
        runs = []
        for file in sorted(self._runs.glob("job_*.json")):
            try:
                runs.append(msgspec.json.decode(file.read_bytes(), type=Run))
            except (msgspec.MsgspecError, UnicodeDecodeError) as error:
                raise Corrupt("site.journal", job=file.stem) from error
            except FileNotFoundError:
                continue  # forgotten while we looked
        return runs

    def save(self, run: Run) -> None:
        path = self._runs / f"{check_job_id(run.job)}.json"
        data = msgspec.json.encode(run)
        self._with_reserve(lambda: durable.write_file(path, data))

    def forget(self, job: str) -> None:
        line = f"{check_job_id(job)}\n".encode()
        with self._guard:
            self._with_reserve(lambda: durable.append(self._forgotten_file, line))
            self._forgotten.add(job)
            (self._runs / f"{job}.json").unlink(missing_ok=True)
            durable.sync_directory(self._runs)

    def knew(self, job: str) -> bool:
        return job in self._forgotten

    def _read_forgotten(self) -> set[str]:
        """Return the ids; cut off one that a crash tore, or it would swallow the next."""
        if not self._forgotten_file.exists():
            return set()
        data = self._forgotten_file.read_bytes()
        whole = data[: data.rfind(b"\n") + 1]
        if whole != data:
            os.truncate(self._forgotten_file, len(whole))
        return set(whole.decode("ascii", "replace").split())

    def append(self, records: Sequence[Record]) -> Link:
        with self._guard:
            seq, previous = self._head or self._recover(records[0])
            lines: list[Link] = []
            for record in records:
                lines.append(link(record, seq=seq + 1, previous=previous))
                seq, previous = lines[-1].seq, lines[-1].digest
            data = b"".join(one.line + b"\n" for one in lines)
            path = self._month_file(records[0])
            self._with_reserve(lambda: durable.append(path, data))
            self._head = seq, previous
            return lines[-1]

    def _month_file(self, record: Record) -> Path:
        """Return the file of the record's month, or a later one that was begun by a wrong clock."""
        wanted = f"{record.at:%Y-%m}.jsonl"
        months = log_files(self._log)
        return months[-1] if months and months[-1].name > wanted else self._log / wanted

    def _recover(self, first: Record) -> tuple[int, str]:
        """Return the number and digest of the last record; cut off a torn one and say so."""
        months = log_files(self._log)
        if not months:
            return 0, ORIGIN
        whole, newline, torn = months[-1].read_bytes().rpartition(b"\n")
        last = self._last_line(months, whole)
        head = (0, ORIGIN) if last is None else _number_and_digest(last)
        if not torn:
            return head
        os.truncate(months[-1], len(whole) + len(newline))
        facts = {"bytes": len(torn)}
        record = Record(at=first.at, kind=Kind.RECOVERED, job="", facts=facts)
        mended = link(record, seq=head[0] + 1, previous=head[1])
        self._with_reserve(lambda: durable.append(months[-1], mended.line + b"\n"))
        return mended.seq, mended.digest

    @staticmethod
    def _last_line(months: list[Path], whole: bytes) -> bytes | None:
        if whole:
            return whole.rsplit(b"\n", 1)[-1]
        for file in reversed(months[:-1]):
            if lines := file.read_bytes().splitlines():
                return lines[-1]
        return None

    def _with_reserve(self, write: Callable[[], None]) -> None:
        """Write; on a full disk give the reserve up first, so that an end can still be told."""
        try:
            write()
        except OSError as error:
            reserve = self._state / "reserve"
            if not durable.no_room(error) or not reserve.exists():
                raise durable.translated(error) from error
            reserve.unlink(missing_ok=True)
            try:
                write()
            except OSError as again:
                raise durable.translated(again) from again

    def _keep_reserve(self) -> None:
        reserve = self._state / "reserve"
        if not reserve.exists():
            try:
                durable.write_file(reserve, bytes(RESERVE_BYTES))
            except OSError as error:
                if not durable.no_room(error):
                    raise durable.translated(error) from error


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
    for file in log_files(state / "log"):
        with file.open("rb") as lines:
            for line in lines:
                yield file, line.rstrip(b"\n")


def verify_log(state: Path) -> tuple[Link | None, tuple[str, Break] | None]:
    """Return the last good link of the site's log and the first break, by file and line."""
    places = [(file.name, line) for file, line in read_log(state)]
    last, broken = verify(line for _, line in places)
    if broken is None:
        return last, None
    name = places[broken.line - 1][0]
    first = next(n for n, (file, _) in enumerate(places) if file == name)
    return last, (name, Break(broken.line - first, broken.why))
