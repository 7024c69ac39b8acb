"""The broker's store in a database: SQLite in one file, or PostgreSQL."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa

from sekisho.adapters import migrations
from sekisho.adapters.sql.directory import SqlDirectory
from sekisho.adapters.sql.engine import Database
from sekisho.adapters.sql.jobs import SqlJobs
from sekisho.adapters.sql.ledger import SqlLedger
from sekisho.adapters.sql.mint import SqlMintNotes
from sekisho.adapters.sql.retention import SqlRetention
from sekisho.adapters.sql.snapshots import SqlSnapshots
from sekisho.broker.ports import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class SqlStore(Store):
    """The ports, and the database behind them: close it at the end."""

    database: Database


def sqlite_url(path: Path) -> str:
    """Return the address of the SQLite database in ``path``."""
    return sa.URL.create("sqlite", database=str(path)).render_as_string()


def open_store(database: Database) -> SqlStore:
    """Return the ports; raise ConfigError unless the database has this program's version."""
    migrations.check(database)
    return SqlStore(
        jobs=SqlJobs(database),
        ledger=SqlLedger(database),
        retention=SqlRetention(database),
        directory=SqlDirectory(database),
        snapshots=SqlSnapshots(database),
        mint=SqlMintNotes(database),
        at_hand=database.sqlite,
        database=database,
    )
