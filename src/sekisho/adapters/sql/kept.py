"""Bytes that are kept beside a job: one row each, of a table with the job's id and one column."""

from __future__ import annotations

from collections.abc import Callable

import sqlalchemy as sa

from sekisho.adapters.sql.engine import Database
from sekisho.adapters.sql.tables import jobs
from sekisho.domain.errors import NotFound


class Kept:
    """What is kept in ``column``. A job that is there stays until a write has ended.

    With ``shared`` several writers of one job may go on at once, and the last one counts.
    """

    def __init__(self, database: Database, column: sa.Column[bytes], *, shared: bool) -> None:
        self._database = database
        self._name = column.name
        of_job = column.table.c.job_id
        self._one = sa.select(column).where(of_job == sa.bindparam("job"))
        there = sa.select(jobs.c.id).where(jobs.c.id == sa.bindparam("job"))
        self._there = there.with_for_update(key_share=True, read=shared)
        new = database.insert(column.table)
        self._keep = new.on_conflict_do_update(
            index_elements=[of_job], set_={self._name: new.excluded[self._name]}
        )

    def get(self, job_id: str) -> bytes | None:
        """Return the bytes of a job; None when there are none."""
        with self._database.reading() as tx:
            return self._found(tx, job_id)

    def put(self, job_id: str, data: bytes) -> None:
        """Keep ``data`` in place of what there was; raise NotFound without the job."""
        self._write(job_id, lambda _: data)

    def change(self, job_id: str, decide: Callable[[bytes | None], bytes]) -> None:
        """Keep what ``decide`` makes of what there was; raise NotFound without the job."""
        self._write(job_id, lambda tx: decide(self._found(tx, job_id)))

    def _write(self, job_id: str, made: Callable[[sa.Connection], bytes]) -> None:
        with self._database.writing() as tx:
            if tx.execute(self._there, {"job": job_id}).first() is None:
                raise NotFound("job.not_found", job=job_id)
            tx.execute(self._keep, {"job_id": job_id, self._name: made(tx)})

    def _found(self, tx: sa.Connection, job_id: str) -> bytes | None:
        found = tx.execute(self._one, {"job": job_id}).scalar()
        return None if found is None else bytes(found)
