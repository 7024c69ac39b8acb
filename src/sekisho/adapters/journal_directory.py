"""Journal in a directory: one file for each run, the site's log by month, one owner at a time.

<state>/lock            held while an agent runs; its content is the agent's process id
<state>/runs/JOB.json   what is remembered of a job
<state>/forgotten       ids of jobs whose run was dropped, one a line: never to be started again
<state>/log/            the site's log; agents and carriers of one site write to the same
<state>/reserve         space given up when the disk is full, so that the end can still be written
"""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from sekisho.adapters import durable
from sekisho.adapters.sitelog_directory import DirectorySiteLog
from sekisho.domain.errors import Conflict, Corrupt
from sekisho.domain.ids import check_job_id
from sekisho.domain.limits import MIB
from sekisho.domain.run import Run
from sekisho.domain.sitelog import Link, Record
from sekisho.transfer.place import no_room

RESERVE_BYTES: Final = MIB


class DirectoryJournal:
    """Journal below ``state``. Make one to read; `lock` it before writing."""

    def __init__(self, state: Path, *, log: Path | None = None) -> None:
        self._state = state
        self._runs = state / "runs"
        self._forgotten_file = state / "forgotten"
        self._log_folder = log or state / "log"
        self._log = DirectorySiteLog(self._log_folder, self._append_to_log)
        self._lock_file: int | None = None
        self._guard = threading.Lock()
        self._forgotten: set[str] = set()
        self._learnt_bytes = 0  #: how much of the file of forgotten ids was read

    def lock(self) -> None:
        """Become the only writer, or raise Conflict; mend what a crash left, and learn the past."""
        for folder in (self._state, self._runs, self._log_folder):
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
        self._mend_forgotten()
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

    def run(self, job: str) -> Run | None:
        """Return what is remembered of ``job``; None: nothing."""
        file = self._runs / f"{check_job_id(job)}.json"
        try:
            return msgspec.json.decode(file.read_bytes(), type=Run)
        except FileNotFoundError:
            return None
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise Corrupt("site.journal", job=job) from error

    def save(self, run: Run, *, lasting: bool = True) -> None:
        path = self._runs / f"{check_job_id(run.job)}.json"
        data = msgspec.json.encode(run)
        self._with_reserve(lambda: durable.write_file(path, data, named=lasting))

    def forget(self, job: str) -> None:
        line = f"{check_job_id(job)}\n".encode()
        with self._guard:
            self._with_reserve(lambda: durable.append(self._forgotten_file, line))
            self._catch_up()
            (self._runs / f"{job}.json").unlink(missing_ok=True)
            durable.sync_directory(self._runs)

    def knew(self, job: str) -> bool:
        with self._guard:
            self._catch_up()  # a gate may have forgotten it, in a process of its own
            return job in self._forgotten

    def _catch_up(self) -> None:
        """Learn the ids that were added since the last look."""
        try:
            with self._forgotten_file.open("rb") as file:
                file.seek(self._learnt_bytes)
                new = file.read()
        except FileNotFoundError:
            return
        whole = new[: new.rfind(b"\n") + 1]
        self._forgotten.update(whole.decode("ascii", "replace").split())
        self._learnt_bytes += len(whole)

    def _mend_forgotten(self) -> None:
        """Cut off an id that a crash tore, or it would swallow the next."""
        self._catch_up()
        with suppress(FileNotFoundError):
            os.truncate(self._forgotten_file, self._learnt_bytes)

    def append(self, records: Sequence[Record]) -> Link:
        try:
            return self._log.append(records)
        except OSError as error:
            raise durable.translated(error) from error

    def _append_to_log(self, path: Path, data: bytes) -> None:
        self._with_reserve(lambda: durable.append(path, data))

    def _with_reserve(self, write: Callable[[], None]) -> None:
        """Write; on a full disk give the reserve up first, so that an end can still be told."""
        try:
            write()
        except OSError as error:
            reserve = self._state / "reserve"
            if not no_room(error) or not reserve.exists():
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
                if not no_room(error):
                    raise durable.translated(error) from error
