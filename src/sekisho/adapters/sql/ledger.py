"""What jobs hold and have been through, in a database."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import islice
from typing import Any, Final

import sqlalchemy as sa

from sekisho.adapters.sql.engine import AnyRow, Database
from sekisho.adapters.sql.holding import holding, used, used_alone
from sekisho.adapters.sql.tables import history, jobs, pins
from sekisho.broker.holding import Allow, Holding, Usage, anything
from sekisho.broker.ports import space_of
from sekisho.domain.errors import IntegrityError, NotFound
from sekisho.domain.job import JobState
from sekisho.wire.frames import Chunk

_BATCH: Final = 1000  #: digests named in one statement
DIGESTS: Final[sa.BindParameter[Any]] = sa.bindparam("digests", expanding=True)

_HOLDER: Final = (
    sa.select(jobs.c.site, jobs.c.submitter, jobs.c.stored_bytes)
    .where(jobs.c.id == sa.bindparam("id"))
    .with_for_update(key_share=True)
)
_ALL: Final = sa.select(pins.c.digest, pins.c.size).where(pins.c.job_id == sa.bindparam("id"))
_AMONG: Final = _ALL.where(pins.c.digest.in_(DIGESTS))
_STORED: Final = (
    sa.update(jobs)
    .where(jobs.c.id == sa.bindparam("job"))
    .values(stored_bytes=sa.bindparam("bytes"))
)
_COUNTS: Final = sa.select(jobs.c.site, jobs.c.state, sa.func.count()).group_by(
    jobs.c.site, jobs.c.state
)
_HISTORY: Final = (
    sa.select(history.c.at, history.c.state)
    .where(history.c.job_id == sa.bindparam("id"))
    .order_by(history.c.version)
)


class SqlLedger:
    """Implements `broker.ports.JobLedger`."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._hold = holding(database)

    def declare(self, job_id: str, chunks: Sequence[Chunk], allow: Allow = anything) -> int:
        def work(tx: sa.Connection) -> int:
            job = tx.execute(_HOLDER, {"id": job_id}).first()
            if job is None:
                raise NotFound("job.not_found", job=job_id)
            space = space_of(site=job.site, submitter=job.submitter)
            self._database.hold_space(tx, space, alone=False)
            pinned = _pinned(tx, job_id, [chunk.digest for chunk in chunks])
            new = _sizes([*pinned, *chunks])
            for chunk in pinned:
                del new[chunk.digest]
            held = int(job.stored_bytes) + sum(new.values())
            if new:
                self._pin(tx, job_id, job, new)
                allow(self._holding(tx, job, held))
            return held

        return self._database.write(work)

    def needs(self, job_id: str, digests: Sequence[str]) -> bool:
        return len(self.declared(job_id, digests)) == len(set(digests))

    def declared(self, job_id: str, among: Sequence[str] | None = None) -> list[Chunk]:
        with self._database.reading() as tx:
            if among is None:
                found = [Chunk(*row) for row in tx.execute(_ALL, {"id": job_id})]
            else:
                found = _pinned(tx, job_id, list(set(among)))
        return sorted(found)

    def _holding(self, tx: sa.Connection, job: AnyRow, held: int) -> Holding:
        """Return what is held now; nobody else of the site or the submitter changes it with us."""
        site, submitter = used_alone(self._database, tx, site=job.site, submitter=job.submitter)
        return Holding(job=held, site=site.stored_bytes, submitter=submitter.stored_bytes)

    def usage(self, *, site: str | None = None, submitter: str | None = None) -> Usage:
        with self._database.reading() as tx:
            return used(tx, site=site, submitter=submitter)

    def counts(self) -> dict[tuple[str, JobState], int]:
        with self._database.reading() as tx:
            return {(site, state): count for site, state, count in tx.execute(_COUNTS)}

    def history(self, job_id: str) -> list[tuple[datetime, JobState]]:
        with self._database.reading() as tx:
            return [(at, state) for at, state in tx.execute(_HISTORY, {"id": job_id})]

    def _pin(self, tx: sa.Connection, job_id: str, job: AnyRow, new: dict[str, int]) -> None:
        more = sum(new.values())
        rows = [{"job_id": job_id, "digest": digest, "size": size} for digest, size in new.items()]
        tx.execute(sa.insert(pins), rows)
        tx.execute(_STORED, {"job": job_id, "bytes": job.stored_bytes + more})
        held = {"site": job.site, "submitter": job.submitter, "live_jobs": 0, "stored_bytes": more}
        tx.execute(self._hold, held)


def batches(digests: Sequence[str]) -> Iterator[list[str]]:
    """Return ``digests`` in lists that one statement can name."""
    rest = iter(digests)
    while batch := list(islice(rest, _BATCH)):
        yield batch


def _pinned(tx: sa.Connection, job_id: str, digests: Sequence[str]) -> list[Chunk]:
    return [
        Chunk(*row)
        for batch in batches(sorted(set(digests)))
        for row in tx.execute(_AMONG, {"id": job_id, "digests": batch})
    ]


def _sizes(chunks: Sequence[Chunk]) -> dict[str, int]:
    """Return the size of each digest; raise IntegrityError when two are told of one."""
    sizes: dict[str, int] = {}
    for chunk in chunks:
        if sizes.setdefault(chunk.digest, chunk.size) != chunk.size:
            raise IntegrityError("chunk.size", digest=chunk.digest)
    return sizes
