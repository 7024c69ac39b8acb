"""The database's versions, and going up from one to the next. Downwards: restore a backup.

Only `upgrade` loads Alembic; a broker that starts looks at the version table by itself.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Final

import sqlalchemy as sa

from sekisho.adapters.sql.engine import Database
from sekisho.domain.errors import ConfigError

#: Oldest first; a test compares them with the files in `versions`.
REVISIONS: Final = ("0001", "0002", "0003")
_VERSIONS: Final = sa.table("alembic_version", sa.column("version_num", sa.String))
_LOCK: Final = 0x73656B69  # PostgreSQL's advisory lock of whoever migrates


def head() -> str:
    """Return the version that this program needs."""
    return REVISIONS[-1]


def current(database: Database) -> str | None:
    """Return the version that the database has; None: an empty one."""
    with database.reading() as connection:
        return _version(connection)


def check(database: Database) -> None:
    """Raise ConfigError unless the database has the version that this program needs."""
    version = current(database)
    if version == head():
        return
    _refuse_newer(version)
    raise ConfigError("store.needs_migration", version=version or "-", needed=head())


def upgrade(database: Database) -> None:
    """Bring the database to `head`, all in one transaction. A newer one raises `store.newer`."""
    from alembic import command  # noqa: PLC0415 - loaded by who migrates, not by every start
    from alembic.config import Config  # noqa: PLC0415 - as above

    logging.getLogger("alembic").setLevel(logging.WARNING)
    cfg = Config()
    cfg.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    with database.writing() as connection:
        if not database.sqlite:
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))
        _refuse_newer(_version(connection))
        cfg.attributes["connection"] = connection
        command.upgrade(cfg, "head")


def _version(connection: sa.Connection) -> str | None:
    if not sa.inspect(connection).has_table(_VERSIONS.name):
        return None
    version = connection.execute(sa.select(_VERSIONS.c.version_num)).scalar()
    return None if version is None else str(version)


def _refuse_newer(version: str | None) -> None:
    if version is not None and version not in REVISIONS:
        raise ConfigError("store.newer", version=version, needed=head())
