"""What is particular to the databases: connections, locks, versions, plans."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import event

from sekisho.adapters import migrations
from sekisho.adapters.sql.engine import PRAGMAS, Database
from sekisho.adapters.sql.tables import metadata
from sekisho.adapters.sql.together import Work
from sekisho.adapters.store_sql import SqlStore, open_store, sqlite_url
from sekisho.broker.ports import EVERYONE, JobFilter
from sekisho.domain.errors import ConfigError, Conflict, Corrupt, SyncFailed, Unavailable
from sekisho.domain.job import JobState
from tests.world import DAY, NOW, a_chunk, a_job, a_site, a_token


@pytest.fixture
def store(sqlite: Database) -> SqlStore:
    return open_store(sqlite)


@pytest.fixture
def path(sqlite: Database) -> Path:
    return Path(str(sqlite.engine.url.database))


@pytest.fixture
def writer_elsewhere(path: Path) -> Iterator[sqlite3.Connection]:
    """Another process's transaction that holds SQLite's write lock."""
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield other


# ------------------------------------------------------------------------- SQLite's connections


def test_every_connection_has_every_pragma(sqlite: Database) -> None:
    together = threading.Barrier(5, timeout=30)
    found: list[list[object]] = []

    def look() -> None:
        with sqlite.reading() as tx:
            together.wait()
            found.append([tx.exec_driver_sql(f"PRAGMA {name}").scalar() for name, _ in PRAGMAS])

    threads = [threading.Thread(target=look) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert found == [[value for _, value in PRAGMAS]] * 5
    assert dict(PRAGMAS)["journal_mode"] == "wal"
    assert dict(PRAGMAS)["synchronous"] == 2


def test_the_database_is_for_its_owner_only(tmp_path: Path) -> None:
    database = Database(sqlite_url(tmp_path / "new.sqlite3"))
    migrations.upgrade(database)
    modes = {file.name: file.stat().st_mode & 0o777 for file in tmp_path.glob("new.sqlite3*")}
    database.close()
    assert modes == dict.fromkeys(modes, 0o600)
    assert len(modes) == 3


@pytest.mark.usefixtures("writer_elsewhere")
def test_readers_and_polls_that_find_nothing_take_no_lock(store: SqlStore) -> None:
    """Kills: a reader that begins as a writer. It would wait ten seconds and raise Unavailable."""
    assert store.jobs.offer_next("one", "agent-1", now=NOW, until=NOW) is None
    assert store.jobs.page(JobFilter(), after=None, limit=1) == []
    assert store.jobs.due(NOW, limit=1) == []
    assert store.ledger.usage().live_jobs == 0
    assert store.ledger.declared("job") == []
    assert store.directory.principal_for("00" * 32, NOW) is None
    assert store.directory.site("one") is None
    assert migrations.current(store.database) == migrations.head()


class Crowd:
    """Threads that all want to write while another process has the lock.

    The first one begins a transaction alone, and all others are in line when it ends.
    """

    def __init__(self, database: Database, elsewhere: sqlite3.Connection) -> None:
        self.database = database
        self._elsewhere = elsewhere
        self._begun = threading.Semaphore(0)
        self.engine = database._writers  # noqa: SLF001 (nothing else tells)
        event.listen(self.engine, "begin", lambda _: self._begun.release(), insert=True)

    def write(self, works: Sequence[Work[str]]) -> list[Future[str]]:
        """Do ``works`` of which all but the first share a transaction, if they can."""
        with ThreadPoolExecutor(len(works)) as threads:
            outcomes = [threads.submit(self.database.write, works[0])]
            assert self._begun.acquire(timeout=30)
            outcomes += [threads.submit(self.database.write, work) for work in works[1:]]
            in_line = self.database._together._waiting  # noqa: SLF001
            until = time.monotonic() + 30
            while len(in_line) < len(works) - 1 and time.monotonic() < until:
                threading.Event().wait(0.001)
            self._elsewhere.execute("COMMIT")
        return outcomes

    def begun(self) -> int:
        """Return how many transactions were begun since the first one."""
        number = 0
        while self._begun.acquire(blocking=False):
            number += 1
        return number


def noted(name: str) -> Work[str]:
    """Return a work that writes ``name`` into a table of its own."""

    def work(tx: sa.Connection) -> str:
        tx.exec_driver_sql("INSERT INTO notes VALUES (?)", (name,))
        if name.startswith("bad"):
            raise Conflict("job.forgotten", job=name)
        return name

    return work


@pytest.fixture
def crowd(sqlite: Database, path: Path) -> Iterator[Crowd]:
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("CREATE TABLE notes (name TEXT)")
        other.execute("BEGIN IMMEDIATE")
        yield Crowd(sqlite, other)


def notes(database: Database) -> list[str]:
    with database.reading() as tx:
        return sorted(tx.exec_driver_sql("SELECT name FROM notes").scalars())


def test_writers_that_come_during_a_commit_share_the_next(crowd: Crowd) -> None:
    """Kills: a commit for each writer. A disk that needs 10 ms would do a hundred a second."""
    names = [f"note {n}" for n in range(9)]
    outcomes = crowd.write([noted(name) for name in names])
    assert [outcome.result() for outcome in outcomes] == names
    assert notes(crowd.database) == names
    assert crowd.begun() == 1


def test_a_write_that_fails_takes_nothing_from_those_that_share_its_commit(crowd: Crowd) -> None:
    """Kills: keeping what the failed one wrote, and failing the others with it."""
    outcomes = crowd.write([noted(name) for name in ("first", "second", "bad", "third")])
    assert [outcome.result() for outcome in (*outcomes[:2], outcomes[3])] == [
        "first",
        "second",
        "third",
    ]
    assert isinstance(outcomes[2].exception(), Conflict)
    assert notes(crowd.database) == ["first", "second", "third"]


def test_a_commit_that_fails_is_the_failure_of_all_that_share_it(crowd: Crowd) -> None:
    """Kills: committing a second time after a sync that failed (`adapters.durable`, rule 2)."""
    tried: list[str] = []

    def work(tx: sa.Connection) -> str:
        tried.append("tried")
        return noted("shared")(tx)

    def fail(_: sa.Connection) -> None:
        if tried:
            raise SyncFailed

    event.listen(crowd.engine, "commit", fail)
    outcomes = crowd.write([noted("first"), work, work, work])
    assert outcomes[0].result() == "first"
    assert [type(outcome.exception()) for outcome in outcomes[1:]] == [SyncFailed] * 3
    assert len(tried) == 3
    assert notes(crowd.database) == ["first"]


def test_a_writer_waits_for_the_writer_of_another_process(
    store: SqlStore, writer_elsewhere: sqlite3.Connection
) -> None:
    job = a_job()
    added = threading.Thread(target=store.jobs.add, args=[job])
    added.start()
    writer_elsewhere.execute("COMMIT")
    added.join(30)
    assert store.jobs.get(job.id, EVERYONE) == job


@pytest.mark.usefixtures("writer_elsewhere")
def test_a_writer_that_waited_too_long_says_that_it_may_try_again(store: SqlStore) -> None:
    with store.database.engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA busy_timeout = 1")
    with pytest.raises(Unavailable) as caught:
        store.jobs.add(a_job())
    assert caught.value.code == "store.busy"


def test_what_is_no_database_is_reported_as_damage(tmp_path: Path) -> None:
    path = tmp_path / "broken.sqlite3"
    path.write_bytes(b"this is no database, whatever its name says" * 100)
    with pytest.raises(Corrupt):
        migrations.current(Database(sqlite_url(path)))


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:", "sqlite:////nowhere/at/all"])
def test_a_database_that_cannot_be_kept_is_refused(url: str) -> None:
    with pytest.raises(ConfigError):
        Database(url)


def test_a_copy_is_whole_while_others_write(store: SqlStore, tmp_path: Path) -> None:
    jobs = [store.jobs.add(a_job()) for _ in range(20)]
    writing = threading.Event()
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            store.jobs.add(a_job())
            writing.set()

    writer = threading.Thread(target=write)
    writer.start()
    assert writing.wait(30)
    store.database.copy_to(tmp_path / "copy.sqlite3")
    stop.set()
    writer.join(30)
    copy = open_store(Database(sqlite_url(tmp_path / "copy.sqlite3")))
    assert [copy.jobs.get(job.id, EVERYONE) for job in jobs] == jobs
    assert copy.ledger.usage().live_jobs == len(copy.jobs.page(JobFilter(), after=None, limit=9999))
    copy.database.close()


@pytest.mark.parametrize(
    ("call", "index"),
    [
        (lambda s: s.jobs.offer_next("one", "agent", now=NOW, until=NOW), "jobs_queue"),
        (lambda s: s.jobs.due(NOW, limit=9), "jobs_offer_end"),
        (lambda s: s.jobs.due(NOW, limit=9), "jobs_waiting_end"),
        (
            lambda s: s.retention.purgeable(received_before=NOW, ended_before=NOW, limit=9),
            "jobs_received",
        ),
        (
            lambda s: s.retention.purgeable(received_before=NOW, ended_before=NOW, limit=9),
            "jobs_ended",
        ),
        (
            lambda s: s.jobs.page(
                JobFilter(states=frozenset({JobState.RUNNING})), after=None, limit=9
            ),
            "jobs_live",
        ),
        (lambda s: s.ledger.usage(submitter="alice"), "holdings_submitter"),
        (lambda s: s.jobs.page(JobFilter(site="one"), after="job", limit=9), "jobs_site"),
        (lambda s: s.jobs.page(JobFilter(submitter="a"), after="job", limit=9), "jobs_submitter"),
        (lambda s: s.directory.principal_for("00" * 32, NOW), "sqlite_autoindex_tokens_2"),
    ],
)
def test_frequent_questions_are_answered_from_an_index(
    store: SqlStore, call: object, index: str
) -> None:
    asked: list[tuple[str, Any]] = []

    def note(*event: object) -> None:
        asked.append((str(event[2]), event[3]))

    sa.event.listen(store.database.engine, "before_cursor_execute", note)
    assert callable(call)
    call(store)
    sa.event.remove(store.database.engine, "before_cursor_execute", note)
    plan = ""
    with store.database.engine.connect() as connection:
        for statement, values in asked:
            if statement.startswith("SELECT"):
                rows = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values)
                plan += "\n".join(str(row) for row in rows)
    assert f"INDEX {index}" in plan


# --------------------------------------------------------------------------------- PostgreSQL


def test_a_server_that_may_forget_is_refused(postgresql: str) -> None:
    url = f"{postgresql}&options=-c%20synchronous_commit%3Doff"
    with pytest.raises(ConfigError) as caught:
        migrations.current(Database(url))
    assert caught.value.params == {"setting": "synchronous_commit"}
    allowed = Database(url, allow_unsafe=True)
    assert migrations.current(allowed) in {None, migrations.head()}
    allowed.close()


def test_a_server_that_is_not_there_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(Unavailable):
        migrations.current(Database(f"postgresql://nobody@/nothing?host={tmp_path}"))


def test_transactions_read_what_is_committed(empty_postgresql: Database) -> None:
    with empty_postgresql.writing() as tx:
        assert tx.exec_driver_sql("SHOW transaction_isolation").scalar() == "read committed"


def test_a_copy_of_a_server_is_its_own_tools_work(
    empty_postgresql: Database, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError):
        empty_postgresql.copy_to(tmp_path / "copy")


# ----------------------------------------------------------------------------------- versions


def test_migrating_makes_exactly_the_tables_that_the_program_uses(database: Database) -> None:
    with database.reading() as tx:
        context = MigrationContext.configure(tx, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []


def test_the_list_of_versions_is_the_list_of_files() -> None:
    scripts = ScriptDirectory(str(Path(migrations.__file__).parent))
    files = [script.revision for script in scripts.walk_revisions()]
    assert tuple(reversed(files)) == migrations.REVISIONS
    assert scripts.get_current_head() == migrations.head()


def test_migrating_again_changes_nothing(database: Database) -> None:
    store = open_store(database)
    job = store.jobs.add(a_job())
    migrations.upgrade(database)
    assert migrations.current(database) == migrations.head()
    assert store.jobs.get(job.id, EVERYONE) == job


def test_an_empty_database_is_not_opened_before_it_is_migrated(tmp_path: Path) -> None:
    database = Database(sqlite_url(tmp_path / "new.sqlite3"))
    assert migrations.current(database) is None
    with pytest.raises(ConfigError) as caught:
        open_store(database)
    assert caught.value.code == "store.needs_migration"
    migrations.upgrade(database)
    open_store(database)
    database.close()


def test_a_database_newer_than_the_program_is_refused_and_left_alone(sqlite: Database) -> None:
    with sqlite.writing() as tx:
        tx.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    for use in (open_store, migrations.upgrade):
        with pytest.raises(ConfigError) as caught:
            use(sqlite)
        assert caught.value.code == "store.newer"
    assert migrations.current(sqlite) == "9999"


def test_a_migration_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    database = Database(sqlite_url(tmp_path / "new.sqlite3"))
    with database.writing() as tx:
        tx.exec_driver_sql("CREATE TABLE tokens (id TEXT)")  # in the way of the last table
    with pytest.raises(Unavailable):
        migrations.upgrade(database)
    with database.reading() as tx:
        assert sa.inspect(tx).get_table_names() == ["tokens"]
    database.close()


def test_opening_a_store_does_not_load_what_only_migrations_need() -> None:
    code = (
        "import sys, sekisho.adapters.store_sql; print([m for m in sys.modules if 'alembic' in m])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# ------------------------------------------------------------------------------ what is kept


def test_no_table_keeps_a_job_that_was_purged_but_its_id(database: Database) -> None:
    store = open_store(database)
    store.directory.put_site(a_site())
    store.directory.put_token(a_token())
    job = store.jobs.add(a_job(state=JobState.FAILED, changed_at=NOW, expires_at=NOW + DAY))
    store.ledger.declare(job.id, [a_chunk()[0]])
    store.retention.purge(job.id)
    with database.reading() as tx:
        rows = {
            t.name: tx.scalar(sa.select(sa.func.count()).select_from(t))
            for t in metadata.sorted_tables
        }
    left = {name: count for name, count in rows.items() if count}
    assert left == {"forgotten": 1, "holdings": 1, "sites": 1, "tokens": 1}
