"""Connections and transactions: the only place where the two databases differ in kind.

SQLite: WAL, synchronous FULL, foreign keys, on every connection. A writer takes the write lock at
its beginning (BEGIN IMMEDIATE), a reader never; the threads of one process queue for it in memory,
because SQLite itself would let them sleep and try again, and share commits (`write`). A reader
begins no transaction at all.
PostgreSQL: READ COMMITTED, row locks; a server that may forget what it confirmed is refused.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, Final, TypeAlias

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.dialects import postgresql, sqlite

from sekisho.adapters.durable import crashpoint
from sekisho.adapters.sql.fault import translated
from sekisho.adapters.sql.together import T, Together, Work
from sekisho.domain.errors import ConfigError, Conflict, Unavailable

AnyRow: TypeAlias = sa.Row[*tuple[Any, ...]]

#: Asserted by a test on every connection.
PRAGMAS: Final = (
    ("busy_timeout", 10_000),
    ("journal_mode", "wal"),
    ("synchronous", 2),
    ("foreign_keys", 1),
    ("trusted_schema", 0),
)
_SAFE_SETTINGS: Final = ("fsync", "full_page_writes", "synchronous_commit")
#: What the right to serve is called, among the locks of a database.
_RIGHT: Final = int.from_bytes(b"sekisho")
#: When a session of a machine that is gone ends, in seconds: after one minute.
_SOON_DEAD: Final = (
    ("tcp_keepalives_idle", 30),
    ("tcp_keepalives_interval", 10),
    ("tcp_keepalives_count", 3),
)
_MODE: Final = "sekisho_transaction"
_BEGIN: Final = {"write": "BEGIN IMMEDIATE"}
#: Connections of SQLite that stay with the readers: taking one from the pool costs thrice the read.
_HELD: Final = 8


class Database:
    """An engine and its transactions. ``url`` is SQLAlchemy's; a SQLite file is made when absent.

    Raise ConfigError when ``url`` is none, or of another kind, and Unavailable when a PostgreSQL
    server does not let us in: this is said where people set it up, with the server's own words.
    ``allow_unsafe`` accepts a PostgreSQL server that does not sync: for throw-away tests only.
    """

    def __init__(self, url: str, *, connections: int = 16, allow_unsafe: bool = False) -> None:
        address = _address(url)
        self.sqlite = address.get_backend_name() == "sqlite"
        self._turn = threading.Lock() if self.sqlite else nullcontext()
        if self.sqlite:
            self.engine = _sqlite(address, connections)
        else:
            self.engine = _postgresql(address, connections, allow_unsafe=allow_unsafe)
        self._writers = self.engine.execution_options(**{_MODE: "write"})
        self._held: list[sa.Connection] = []
        self._together = Together(self.writing)

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """Give a connection to read from what is committed; each statement sees one moment."""
        with translated():
            connection = self._reader()
            try:
                yield connection
            except BaseException:
                connection.close()
                raise
            self._hold(connection)

    @contextmanager
    def writing(self) -> Iterator[sa.Connection]:
        """Give a connection whose writes are all durable afterwards, or none after an error."""
        with translated():
            with self._turn, self._writers.begin() as connection:
                crashpoint("store.begun")
                yield connection
                crashpoint("store.written")
            crashpoint("store.kept")

    def write(self, work: Work[T]) -> T:
        """Return what ``work`` returns, when all that it wrote is durable; or nothing of it is.

        ``work`` has no effect but on its connection: it may be done again, when others that were
        to share its commit were at fault. (PostgreSQL lets its sessions share commits itself.)
        """
        if self.sqlite:
            return self._together.do(work)
        with self.writing() as tx:
            return work(tx)

    def insert(self, table: sa.Table) -> sqlite.Insert | postgresql.Insert:
        """Return an insertion that may say what happens to a row that is there already."""
        return sqlite.insert(table) if self.sqlite else postgresql.insert(table)

    def hold_space(self, connection: sa.Connection, space: str, *, alone: bool) -> None:
        """Hold a space to the end of the transaction: alone, or with others that are not alone.

        In SQLite every writer is alone anyway.
        """
        if self.sqlite:
            return
        lock = sa.func.pg_advisory_xact_lock if alone else sa.func.pg_advisory_xact_lock_shared
        key = int.from_bytes(hashlib.sha256(space.encode()).digest()[:8], signed=True)
        connection.execute(sa.select(lock(key)))

    def copy_to(self, path: Path) -> None:
        """Write a consistent copy of a SQLite database to a new file, while others go on."""
        if not self.sqlite:
            raise ConfigError("store.copy_sqlite_only")
        with translated(), self.engine.connect() as connection:
            connection.exec_driver_sql("VACUUM INTO ?", (str(path),))

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Hold the right to serve from this database; raise Conflict while another broker has it.

        A SQLite file is had with its directory (`compose.broker.alone`). PostgreSQL keeps the right
        for as long as our session lives, and soon knows when our machine does not.
        """
        if self.sqlite:
            yield
            return
        with translated():
            connection = self.engine.connect().execution_options(isolation_level="AUTOCOMMIT")
            for name, value in _SOON_DEAD:
                connection.exec_driver_sql(f"SET {name} = {value}")
            alone = connection.exec_driver_sql(f"SELECT pg_try_advisory_lock({_RIGHT})").scalar()
        try:
            if not alone:
                raise Conflict("store.served")
            yield
        finally:
            connection.detach()  # whoever is given a session of the pool must not have the right
            connection.close()

    def close(self) -> None:
        """Close all connections."""
        while self._held:
            self._held.pop().close()
        self.engine.dispose()

    def _reader(self) -> sa.Connection:
        with suppress(IndexError):
            return self._held.pop()
        return self.engine.connect()

    def _hold(self, connection: sa.Connection) -> None:
        """Keep a reader's connection, or give it back; on SQLite nothing is left begun on it."""
        if self.sqlite and len(self._held) < _HELD:
            self._held.append(connection)
        else:
            connection.close()


def _address(url: str) -> sa.URL:
    with suppress(sa.exc.ArgumentError, ValueError):
        address = sa.make_url(url)
        if address.get_backend_name() in ("sqlite", "postgresql"):
            return address
    raise ConfigError("store.url")


def _sqlite(address: sa.URL, connections: int) -> sa.Engine:
    if not address.database or address.database == ":memory:":
        raise ConfigError("store.url")
    _make_private(Path(address.database))
    engine = sa.create_engine(address, pool_size=connections, max_overflow=0)
    event.listen(engine, "connect", _set_pragmas)
    event.listen(engine, "begin", _begin)
    return engine


def _make_private(path: Path) -> None:
    """Make the file before SQLite does, for its owner only; SQLite's other files follow it."""
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise ConfigError("store.file", why=error.strerror) from error


def _set_pragmas(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # the driver begins nothing by itself: `_begin` does
    for name, value in PRAGMAS:
        connection.execute(f"PRAGMA {name} = {value}")


def _begin(connection: sa.Connection) -> None:
    statement = _BEGIN.get(connection.get_execution_options().get(_MODE, ""))
    if statement is not None:
        connection.exec_driver_sql(statement)


def _postgresql(address: sa.URL, connections: int, *, allow_unsafe: bool) -> sa.Engine:
    try:
        engine = sa.create_engine(
            address.set(drivername="postgresql+psycopg"),
            pool_size=connections,
            max_overflow=0,
            pool_pre_ping=True,
            isolation_level="READ COMMITTED",
        )
    except ModuleNotFoundError as error:
        raise ConfigError("store.driver_missing", module=error.name) from error
    if not allow_unsafe:
        event.listen(engine, "connect", _refuse_unsafe)
    try:
        engine.connect().close()
    except sa.exc.DBAPIError as error:
        engine.dispose()
        raise Unavailable("store.unreachable", said=_first_line(error.orig)) from error
    return engine


def _first_line(error: BaseException | None) -> str:
    """Return what a server or its library said; it names host, database and user, no password."""
    return str(error).strip().partition("\n")[0]


def _refuse_unsafe(connection: Any, _record: object) -> None:
    for name in _SAFE_SETTINGS:
        (value,) = connection.execute(f"SHOW {name}").fetchone()
        if value == "off":
            raise ConfigError("store.unsafe_setting", setting=name)
    connection.rollback()
