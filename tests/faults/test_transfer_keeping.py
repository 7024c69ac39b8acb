"""No chunk that somebody was told is there is collected: senders, ends, time, GC and crashes.

Kills: a collection that does not look at every pin at the very moment when it deletes.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    rule,
    run_state_machine_as_test,
)

from sekisho.adapters import migrations
from sekisho.adapters.blobs_directory import BlobDirectory
from sekisho.adapters.blobs_memory import MemoryBlobs
from sekisho.adapters.sql.engine import Database
from sekisho.adapters.store_sql import open_store, sqlite_url
from sekisho.adapters.wakeups_memory import MemoryWakeups
from sekisho.broker.chunks import Claim
from sekisho.broker.desk import Desk, Ports
from sekisho.broker.ports import Tenant
from sekisho.domain.errors import IntegrityError
from sekisho.wire.frames import Frame
from tests.component.broker_world import World
from tests.world import a_chunk

ALICE = Claim(tenant=Tenant(submitter="alice"))
CHUNKS = [a_chunk(f"chunk {n}") for n in range(3)]
NUMBERS = st.integers(0, len(CHUNKS) - 1)
#: What a sender does between two steps of a collection: (declare and ask | send, job, chunk).
ACTS = st.lists(st.tuples(st.booleans(), st.integers(0, 1), NUMBERS), max_size=6)


class InterruptedBlobs(MemoryBlobs):
    """A store whose listing takes its time: after each entry, others act."""

    def __init__(self, now: Callable[[], datetime]) -> None:
        super().__init__(now=now)
        self.between: Callable[[], None] = lambda: None
        self.after_look: Callable[[], object] = lambda: None

    def missing(self, space: str, digests: Sequence[str]) -> list[str]:
        found = super().missing(space, digests)
        self.after_look()
        return found

    def older(self, before: datetime) -> Iterator[tuple[str, str]]:
        self.between()
        for entry in list(super().older(before)):
            yield entry
            self.between()


class InterruptedDirectory(BlobDirectory):
    """The same, with files."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.between: Callable[[], None] = lambda: None
        self.after_look: Callable[[], object] = lambda: None

    def missing(self, space: str, digests: Sequence[str]) -> list[str]:
        found = super().missing(space, digests)
        self.after_look()
        return found

    def older(self, before: datetime) -> Iterator[tuple[str, str]]:
        self.between()
        for entry in super().older(before + timedelta(days=20_000)):  # all files are old here
            yield entry
            self.between()


class Keeping(RuleBasedStateMachine):
    """Senders, time and the collector. ``told`` are the chunks that each job may rely on."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.blobs: Any = InterruptedBlobs(self.world.clock.now)
        self.world = World(clock=self.world.clock, blobs=self.blobs)
        self.told: dict[str, set[str]] = {}

    @rule()
    def submit(self) -> None:
        self.told[self.world.submit(has_inputs=True).id] = set()

    @rule(acts=ACTS)
    def act(self, acts: list[tuple[bool, int, int]]) -> None:
        for one in acts:
            self._act(*one)

    @rule(hours=st.sampled_from([1, 12, 25]))
    def wait(self, hours: int) -> None:
        self.world.clock.move(timedelta(hours=hours))

    @rule(job=st.integers(0, 1))
    def forget(self, job: int) -> None:
        if (job_id := self._job(job)) is not None:
            self.world.desk.submissions.cancel("alice", job_id)
            self.world.store.retention.purge(job_id)
            del self.told[job_id]

    @rule(acts=ACTS)
    def collect(self, acts: list[tuple[bool, int, int]]) -> None:
        """Collect, while senders act between the entries of the listing."""
        waiting = iter(acts)

        def between() -> None:
            if (one := next(waiting, None)) is not None:
                self._act(*one)

        self.blobs.between = between
        try:
            self.world.desk.reaper.collect()
        finally:
            self.blobs.between = lambda: None

    @rule(acts=ACTS)
    def race(self, acts: list[tuple[bool, int, int]]) -> None:
        """A collection comes between a sender's question and its answer."""
        self.blobs.after_look = self.world.desk.reaper.collect
        self.act(acts)
        self.blobs.after_look = lambda: None

    @invariant()
    def what_was_told_is_there(self) -> None:
        for job_id, digests in self.told.items():
            job = self.world.job(job_id)
            size, frames = self.world.desk.chunks.fetch(job, sorted(digests))
            assert size == sum(len(frame) for frame in frames)

    def teardown(self) -> None:
        """What nobody needs is collected in the end."""
        while self.told:
            self.forget(0)
        self.world.clock.move(timedelta(hours=25))
        self.world.desk.reaper.collect()
        digests = [chunk.digest for chunk, _ in CHUNKS]
        assert self.blobs.missing("one/alice", digests) == digests

    def _job(self, number: int) -> str | None:
        jobs = sorted(self.told)
        return jobs[number % len(jobs)] if jobs else None

    def _act(self, asks: bool, number: int, chunk_number: int) -> None:
        if (job_id := self._job(number)) is None:
            return
        chunk, data = CHUNKS[chunk_number]
        if asks:
            missing = self.world.desk.chunks.missing(ALICE, job_id, [chunk])
        else:
            missing = []
            try:
                self.world.desk.chunks.store(self.world.job(job_id), [Frame(chunk.digest, data)])
            except IntegrityError:
                assert not self.world.store.ledger.needs(job_id, [chunk.digest])
                return
        if not missing:
            self.told[job_id].add(chunk.digest)


class KeepingOnDisk(Keeping):
    """The same with a real database and files, and with crashes."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="keeping-"))
        (self.folder / "chunks").mkdir()
        self.database: Database | None = None
        self.opened = False
        self._open()

    def _open(self) -> None:
        if self.database is not None:
            self.database.close()
        self.database = Database(sqlite_url(self.folder / "broker.sqlite3"))
        migrations.upgrade(self.database)
        self.blobs = InterruptedDirectory(self.folder / "chunks")
        store = open_store(self.database)
        if self.opened:
            ports = Ports(
                store=store, blobs=self.blobs, wakeups=MemoryWakeups(), clock=self.world.clock
            )
            self.world.store, self.world.desk = store, Desk(ports, self.world.policy)
        else:
            self.world = World(clock=self.world.clock, blobs=self.blobs, store=store)
        self.opened = True

    @rule(acts=ACTS)
    def crash(self, acts: list[tuple[bool, int, int]]) -> None:
        """Die in the middle of a collection, and come back."""

        def die() -> None:
            self.act(acts)
            raise KeyboardInterrupt

        self.blobs.between = die
        with pytest.raises(KeyboardInterrupt):
            self.world.desk.reaper.collect()
        self._open()

    def teardown(self) -> None:
        super().teardown()
        if self.database is not None:
            self.database.close()
        shutil.rmtree(self.folder)


def test_nothing_that_was_told_to_be_there_is_collected() -> None:
    run_state_machine_as_test(
        Keeping, settings=settings(max_examples=150, stateful_step_count=40, deadline=None)
    )


def test_nor_on_disk_with_crashes() -> None:
    run_state_machine_as_test(
        KeepingOnDisk, settings=settings(max_examples=6, stateful_step_count=20, deadline=None)
    )


@pytest.mark.parametrize("kind", [Keeping, KeepingOnDisk])
def test_a_collection_between_the_question_and_its_answer_takes_nothing(
    kind: type[Keeping],
) -> None:
    """Kills: asking what is missing before declaring."""
    machine = kind()
    machine.submit()
    machine.act([(True, 0, 0), (False, 0, 0)])
    machine.forget(0)
    machine.wait(25)
    machine.submit()
    machine.race([(True, 0, 0)])
    machine.what_was_told_is_there()
    machine.teardown()
