"""What the old MInt paths remember, in a database."""

from __future__ import annotations

from datetime import datetime
from typing import Final

import sqlalchemy as sa

from sekisho.adapters.sql.engine import Database
from sekisho.adapters.sql.kept import Kept
from sekisho.adapters.sql.tables import mint_notes, mint_uses
from sekisho.broker.ports import MintUse

_USES: Final = sa.select(mint_uses).order_by(mint_uses.c.site, mint_uses.c.side)


class SqlMintNotes:
    """Implements `broker.ports.MintNotes`."""

    def __init__(self, database: Database) -> None:
        self._database = database
        notes = Kept(database, mint_notes.c.note, shared=False)
        self.note, self.change = notes.get, notes.change
        use = database.insert(mint_uses)
        self._use = use.on_conflict_do_update(
            index_elements=[mint_uses.c.site, mint_uses.c.side],
            set_={
                "calls": mint_uses.c.calls + use.excluded.calls,
                "last_at": use.excluded.last_at,
            },
        )

    def used(self, site: str, side: str, *, calls: int, at: datetime) -> None:
        with self._database.writing() as tx:
            tx.execute(self._use, {"site": site, "side": side, "calls": calls, "last_at": at})

    def uses(self) -> list[MintUse]:
        with self._database.reading() as tx:
            return [MintUse(**row._asdict()) for row in tx.execute(_USES)]
