"""What the old MInt paths remember, in a database."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Final

import sqlalchemy as sa

from sekisho.adapters.sql.engine import Database
from sekisho.adapters.sql.tables import jobs, mint_notes, mint_uses
from sekisho.broker.ports import MintUse
from sekisho.domain.errors import NotFound

_NOTE: Final = sa.select(mint_notes.c.note).where(mint_notes.c.job_id == sa.bindparam("job"))
_THERE: Final = (
    sa.select(jobs.c.id).where(jobs.c.id == sa.bindparam("job")).with_for_update(key_share=True)
)
_USES: Final = sa.select(mint_uses).order_by(mint_uses.c.site, mint_uses.c.side)


class SqlMintNotes:
    """Implements `broker.ports.MintNotes`."""

    def __init__(self, database: Database) -> None:
        self._database = database
        note = database.insert(mint_notes)
        self._keep = note.on_conflict_do_update(
            index_elements=[mint_notes.c.job_id], set_={"note": note.excluded.note}
        )
        use = database.insert(mint_uses)
        self._use = use.on_conflict_do_update(
            index_elements=[mint_uses.c.site, mint_uses.c.side],
            set_={
                "calls": mint_uses.c.calls + use.excluded.calls,
                "last_at": use.excluded.last_at,
            },
        )

    def note(self, job_id: str) -> bytes | None:
        with self._database.reading() as tx:
            found = tx.execute(_NOTE, {"job": job_id}).scalar()
        return None if found is None else bytes(found)

    def change(self, job_id: str, decide: Callable[[bytes | None], bytes]) -> None:
        with self._database.writing() as tx:
            if tx.execute(_THERE, {"job": job_id}).first() is None:
                raise NotFound("job.not_found", job=job_id)
            found = tx.execute(_NOTE, {"job": job_id}).scalar()
            note = decide(None if found is None else bytes(found))
            tx.execute(self._keep, {"job_id": job_id, "note": note})

    def used(self, site: str, side: str, *, calls: int, at: datetime) -> None:
        with self._database.writing() as tx:
            tx.execute(self._use, {"site": site, "side": side, "calls": calls, "last_at": at})

    def uses(self) -> list[MintUse]:
        with self._database.reading() as tx:
            return [MintUse(**row._asdict()) for row in tx.execute(_USES)]
