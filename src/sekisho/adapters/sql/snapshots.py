"""What running jobs have published, in a database."""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa

from sekisho.adapters.sql.engine import Database
from sekisho.adapters.sql.tables import jobs, snapshots
from sekisho.domain.errors import NotFound

_LAST: Final = sa.select(snapshots.c.snapshot).where(snapshots.c.job_id == sa.bindparam("job"))
_THERE: Final = (
    sa.select(jobs.c.id)
    .where(jobs.c.id == sa.bindparam("job"))
    .with_for_update(key_share=True, read=True)
)


class SqlSnapshots:
    """Implements `broker.ports.Snapshots`."""

    def __init__(self, database: Database) -> None:
        self._database = database
        new = database.insert(snapshots)
        self._keep = new.on_conflict_do_update(
            index_elements=[snapshots.c.job_id], set_={"snapshot": new.excluded.snapshot}
        )

    def keep(self, job_id: str, snapshot: bytes) -> None:
        with self._database.writing() as tx:
            if tx.execute(_THERE, {"job": job_id}).first() is None:
                raise NotFound("job.not_found", job=job_id)
            tx.execute(self._keep, {"job_id": job_id, "snapshot": snapshot})

    def last(self, job_id: str) -> bytes | None:
        with self._database.reading() as tx:
            found = tx.execute(_LAST, {"job": job_id}).scalar()
        return None if found is None else bytes(found)
