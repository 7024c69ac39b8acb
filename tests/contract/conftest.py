"""Every adapter of the broker's storage and of a site's workplace, each empty for each test."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from sekisho.adapters import migrations
from sekisho.adapters.blobs_directory import BlobDirectory
from sekisho.adapters.blobs_memory import MemoryBlobs
from sekisho.adapters.sql.engine import Database
from sekisho.adapters.sql.tables import metadata
from sekisho.adapters.store_memory import memory_store
from sekisho.adapters.store_sql import open_store, sqlite_url
from sekisho.broker.ports import BlobStore, Store
from tests.contract.placing import ADAPTERS, Maker, maker_of
from tests.farhost import Far, far_host


@pytest.fixture(scope="session")
def empty_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sqlite") / "broker.sqlite3"
    database = Database(sqlite_url(path))
    migrations.upgrade(database)
    database.close()
    return path


@pytest.fixture
def sqlite(empty_sqlite: Path, tmp_path: Path) -> Iterator[Database]:
    path = tmp_path / "broker.sqlite3"
    shutil.copy(empty_sqlite, path)
    database = Database(sqlite_url(path))
    yield database
    database.close()


@pytest.fixture(scope="session")
def migrated_postgresql(postgresql: str) -> Iterator[Database]:
    database = Database(postgresql)
    migrations.upgrade(database)
    yield database
    database.close()


@pytest.fixture
def empty_postgresql(migrated_postgresql: Database) -> Database:
    tables = ", ".join(table.name for table in metadata.sorted_tables)
    with migrated_postgresql.writing() as tx:
        tx.execute(sa.text(f"TRUNCATE {tables}"))
    return migrated_postgresql


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest) -> Database:
    name = "sqlite" if request.param == "sqlite" else "empty_postgresql"
    found: Database = request.getfixturevalue(name)
    return found


@pytest.fixture(params=["memory", "sqlite", "postgresql"])
def store(request: pytest.FixtureRequest) -> Store:
    match request.param:
        case "memory":
            return memory_store()
        case "sqlite":
            return open_store(request.getfixturevalue("sqlite"))
        case _:
            return open_store(request.getfixturevalue("empty_postgresql"))


@pytest.fixture(params=["memory", "directory"])
def blobs(request: pytest.FixtureRequest, tmp_path: Path) -> BlobStore:
    if request.param == "memory":
        return MemoryBlobs()
    root = tmp_path / "chunks"
    root.mkdir()
    return BlobDirectory(root)


@pytest.fixture(scope="session")
def far_ssh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Far]:
    with far_host(tmp_path_factory.mktemp("far")) as far:
        yield far


@pytest.fixture(scope="session")
def far_ssh_shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Far]:
    with far_host(tmp_path_factory.mktemp("far"), noisy=True) as far:
        yield far


@pytest.fixture(scope="session")
def far_ssh_busybox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Far]:
    with far_host(tmp_path_factory.mktemp("far"), busybox=True) as far:
        yield far


@pytest.fixture(params=ADAPTERS)
def adapter(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def far(request: pytest.FixtureRequest, adapter: str) -> Far | None:
    """The computing host, for the adapters that have one."""
    if adapter == "local":
        return None
    found: Far = request.getfixturevalue(f"far_{adapter}")
    return found


@pytest.fixture
def base(far: Far | None, tmp_path: Path) -> Path:
    """Where the directories of jobs are going to be, on whichever host."""
    return (tmp_path if far is None else far.room()) / "base"


@pytest.fixture
def maker(adapter: str, base: Path, far: Far | None, tmp_path: Path) -> Maker:
    return maker_of(adapter, base, far, tmp_path / "gateway")
