"""What running jobs have published, in a database."""

from __future__ import annotations

from sekisho.adapters.sql.engine import Database
from sekisho.adapters.sql.kept import Kept
from sekisho.adapters.sql.tables import snapshots


class SqlSnapshots:
    """Implements `broker.ports.Snapshots`."""

    def __init__(self, database: Database) -> None:
        kept = Kept(database, snapshots.c.snapshot, shared=True)
        self.keep, self.last = kept.put, kept.get
