"""What a database says when something is wrong, as our errors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import sqlalchemy.exc

from sekisho.domain.errors import Corrupt, SekishoError, StorageFull, SyncFailed, Unavailable

#: SQLite's names, and PostgreSQL's SQLSTATE, of what is more than "try again later".
_FULL: Final = frozenset({"SQLITE_FULL", "53100"})
_CORRUPT: Final = frozenset({"SQLITE_CORRUPT", "SQLITE_NOTADB", "XX001", "XX002"})
_SYNC: Final = ("SQLITE_IOERR_FSYNC", "SQLITE_IOERR_DIR_FSYNC")


@contextmanager
def translated() -> Iterator[None]:
    """Raise our errors for a database's own. A constraint only breaks when the program is wrong."""
    try:
        yield
    except sqlalchemy.exc.IntegrityError as error:
        raise Corrupt("store.constraint") from error
    except sqlalchemy.exc.DBAPIError as error:
        raise _meaning(error.orig) from error
    except sqlalchemy.exc.TimeoutError as error:
        raise Unavailable("store.busy") from error


def _meaning(error: BaseException | None) -> SekishoError:
    name = getattr(error, "sqlite_errorname", None) or getattr(error, "sqlstate", None) or ""
    if name in _FULL:
        return StorageFull()
    if name in _SYNC:
        return SyncFailed(why=name)
    if name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")) or name in _CORRUPT:
        return Corrupt("store.damaged", why=name)
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return Unavailable("store.busy")
    return Unavailable("store.unavailable", why=name or type(error).__name__)
