"""PushStore in a directory: one file for each job, one lock for all of them.

<push>/lock            held while a record is changed, and while the carrier decides to go
<push>/jobs/JOB.json   what is kept of a job
<push>/shown/JOB       what it published last, after a line with the number of times
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

import msgspec

from sekisho.adapters import durable
from sekisho.domain.errors import Conflict, Corrupt, NotFound
from sekisho.domain.ids import check_job_id
from sekisho.site.push import PushJob


class DirectoryPushStore:
    """PushStore below ``push``."""

    def __init__(self, push: Path) -> None:
        self._push = push
        self._jobs = push / "jobs"
        self._jobs.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._shown = push / "shown"
        self._shown.mkdir(mode=0o700, exist_ok=True)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Lock other writers out, in whatever process."""
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            descriptor = os.open(self._push / "lock", flags, 0o600)
        except OSError as error:
            raise durable.translated(error) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def add(self, job: PushJob, admit: Callable[[], None]) -> PushJob:
        with self.locked():
            kept = self._read(self._file(job.id))
            if kept is None:
                admit()
                self._write(job)
                return job
        if not kept.resembles(job):
            raise Conflict("job.different_request", job=job.id)
        return kept

    def get(self, job_id: str, submitter: str) -> PushJob:
        job = self._read(self._file(job_id))
        if job is None or job.submitter != submitter:
            raise NotFound("job.not_found", job=job_id)
        return job

    def update(self, job_id: str, submitter: str, change: Callable[[PushJob], PushJob]) -> PushJob:
        with self.locked():
            kept = self.get(job_id, submitter)
            job = change(kept)
            if job != kept:
                self._write(job)
            return job

    def of(self, submitter: str | None) -> list[PushJob]:
        files = sorted(self._jobs.glob("job_*.json"), reverse=True)
        jobs = [job for file in files if (job := self._read(file)) is not None]
        return [job for job in jobs if submitter is None or job.submitter == submitter]

    def remove(self, job_id: str) -> None:
        """Remove the record, and what a writer that was killed has left."""
        with self.locked():
            self._file(job_id).unlink(missing_ok=True)
            (self._shown / check_job_id(job_id)).unlink(missing_ok=True)
            for folder in (self._jobs, self._shown):
                for leftover in folder.glob(f"{durable.TEMPORARY}*"):
                    leftover.unlink(missing_ok=True)

    def publish(self, job_id: str, snapshot: bytes) -> None:
        head = b"%d\n" % (self.published(job_id) + 1)
        try:
            durable.write_file(self._shown / check_job_id(job_id), head + snapshot)
        except OSError as error:
            raise durable.translated(error) from error

    def published(self, job_id: str) -> int:
        with suppress(FileNotFoundError), self._opened(job_id) as file:
            return int(file.readline())
        return 0

    def snapshot(self, job_id: str) -> bytes | None:
        with suppress(FileNotFoundError), self._opened(job_id) as file:
            file.readline()
            return file.read()
        return None

    def _opened(self, job_id: str) -> IO[bytes]:
        return (self._shown / check_job_id(job_id)).open("rb")

    def _file(self, job_id: str) -> Path:
        return self._jobs / f"{check_job_id(job_id)}.json"

    def _write(self, job: PushJob) -> None:
        try:
            durable.write_file(self._file(job.id), msgspec.json.encode(job))
        except OSError as error:
            raise durable.translated(error) from error

    @staticmethod
    def _read(file: Path) -> PushJob | None:
        try:
            return msgspec.json.decode(file.read_bytes(), type=PushJob)
        except FileNotFoundError:
            return None
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise Corrupt("push.job", job=file.stem) from error
