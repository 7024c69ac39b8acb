"""A process that stores until it ends or is ended, saying what was acknowledged.

    python storing.py FOLDER ACTION [COUNT]

Each line of its output is an id whose writing had returned before the line was written.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from itertools import count, islice
from pathlib import Path
from typing import NoReturn

from sekisho.adapters import durable
from sekisho.adapters.blobs_directory import BlobDirectory
from sekisho.adapters.sql.engine import Database
from sekisho.adapters.store_sql import SqlStore, open_store, sqlite_url
from sekisho.broker.ports import EVERYONE
from sekisho.domain.errors import SekishoError
from sekisho.domain.ids import make_id
from sekisho.domain.job import InputsComplete, JobState, apply
from sekisho.wire.frames import Chunk, Frame, digest_of
from tests.world import NOW, a_job

SPACE = "one/alice"
RECORD = "a record of the log that ends here\n"


def store_in(folder: Path) -> SqlStore:
    return open_store(Database(sqlite_url(folder / "broker.sqlite3")))


def content(number: int) -> bytes:
    return number.to_bytes(4) * 16_000


def put(folder: Path, number: int) -> str:
    digest = digest_of(content(number))
    BlobDirectory(folder / "chunks").put(SPACE, [Frame(digest, content(number))])
    return digest


def add(store: SqlStore) -> str:
    job_id = make_id("job", at_ms=time.time_ns() // 1_000_000, entropy=os.urandom(10))
    return store.jobs.add(a_job(id=job_id, state=JobState.QUEUED, request=content(0))).id


def crowd(store: SqlStore) -> str:
    """Add jobs from several threads at once: they share commits."""
    with ThreadPoolExecutor(8) as threads:
        return "\n".join(threads.map(lambda _: add(store), range(8)))


def save(store: SqlStore) -> str:
    drafts = (job for job in store.jobs.due(NOW, limit=1000) if job.state is JobState.DRAFT)
    job = min(drafts, key=lambda job: job.id)
    if not store.jobs.save(apply(job, InputsComplete(at=NOW)), expected_version=job.version):
        raise ValueError(job)
    return job.id


def declare(store: SqlStore, number: int) -> str:
    job = min(store.jobs.due(NOW, limit=1000), key=lambda job: job.id)
    chunk = Chunk(digest_of(content(number)), number)
    store.ledger.declare(job.id, [chunk])
    return chunk.digest


def offer(store: SqlStore) -> str:
    until = NOW + timedelta(seconds=60)
    job = store.jobs.offer_next("one", "agent", now=NOW - timedelta(days=9), until=until)
    if job is None or store.jobs.get(job.id, EVERYONE) != job:
        raise ValueError(job)
    return job.id


def append(folder: Path, number: int) -> str:
    durable.append(folder / "log", f"{number} {RECORD}".encode())
    return str(number)


def writer(folder: Path, action: str) -> Callable[[int], str]:
    match action:
        case "put":
            return lambda number: put(folder, number)
        case "append":
            return lambda number: append(folder, number)
    store = store_in(folder)
    if action == "declare":
        return lambda number: declare(store, number)
    act = {"add": add, "crowd": crowd, "save": save, "offer": offer}[action]
    return lambda _: act(store)


def main(folder: str, action: str, limit: str = "1000000") -> int:
    write = writer(Path(folder), action)
    for number in islice(count(1), int(limit)):
        try:
            told = write(number)
        except SekishoError as error:
            os.write(2, f"{error.code}\n".encode())
            return error.exit_status
        os.write(1, f"{told}\n".encode())
    return 0


def typed() -> NoReturn:
    sys.exit(main(*sys.argv[1:]))


if __name__ == "__main__":
    typed()
