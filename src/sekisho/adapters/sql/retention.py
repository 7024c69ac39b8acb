"""Forgetting, in a database.

Why a chunk that somebody was told is there stays there. A sender *first* declares a chunk, in a
transaction, and only *then* asks whether it is missing. `unpinned` looks for declarations and
deletes while no transaction that declares can be open (SQLite: one writer; PostgreSQL: a lock on
the space). So either the declaration was before, and the chunk is kept; or it comes after the
deletion, and then the question finds the chunk missing and the sender sends it again.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

import sqlalchemy as sa

from sekisho.adapters.sql.engine import Database
from sekisho.adapters.sql.holding import holding
from sekisho.adapters.sql.jobs import WHOLE_JOBS, read_jobs
from sekisho.adapters.sql.ledger import DIGESTS, batches
from sekisho.adapters.sql.tables import ENDED, forgotten, jobs, pins
from sekisho.broker.ports import BlobStore
from sekisho.domain.errors import Conflict
from sekisho.domain.job import Job

_PURGEABLE: Final = WHOLE_JOBS.where(
    jobs.c.id.in_(
        sa.union(
            sa.select(jobs.c.id).where(jobs.c.received_at < sa.bindparam("received_before")),
            sa.select(jobs.c.id).where(ENDED, jobs.c.changed_at < sa.bindparam("ended_before")),
        )
    )
).limit(sa.bindparam("limit", type_=sa.Integer))
_HOLDER: Final = (
    sa.select(jobs.c.site, jobs.c.submitter, jobs.c.state, jobs.c.stored_bytes)
    .where(jobs.c.id == sa.bindparam("id"))
    .with_for_update()
)
_DELETE: Final = sa.delete(jobs).where(jobs.c.id == sa.bindparam("id"))  # the rest cascades
_SPACE: Final = jobs.c.site + "/" + jobs.c.submitter
_PINNED: Final = (
    sa.select(pins.c.digest)
    .join_from(pins, jobs)
    .where(pins.c.digest.in_(DIGESTS), sa.bindparam("space") == _SPACE)
)


class SqlRetention:
    """Implements `broker.ports.Retention`."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._hold = holding(database)

    def purgeable(
        self, *, received_before: datetime, ended_before: datetime, limit: int
    ) -> list[Job]:
        values = {
            "received_before": received_before,
            "ended_before": ended_before,
            "limit": limit,
        }
        return read_jobs(self._database, _PURGEABLE, values)

    def purge(self, job_id: str) -> None:
        with self._database.writing() as tx:
            job = tx.execute(_HOLDER, {"id": job_id}).first()
            if job is None:
                return
            if not job.state.terminal:
                raise Conflict("job.not_ended", job=job_id)
            tx.execute(sa.insert(forgotten), {"id": job_id})
            tx.execute(_DELETE, {"id": job_id})
            held = {"site": job.site, "submitter": job.submitter}
            less = {"live_jobs": 0, "stored_bytes": -job.stored_bytes}
            tx.execute(self._hold, held | less)

    def unpinned(self, space: str, digests: Sequence[str], delete: BlobStore) -> list[str]:
        with self._database.writing() as tx:
            self._database.hold_space(tx, space, alone=True)
            pinned = {
                digest
                for batch in batches(digests)
                for digest in tx.execute(_PINNED, {"space": space, "digests": batch}).scalars()
            }
            gone = [digest for digest in digests if digest not in pinned]
            delete.delete(space, gone)
        return gone
