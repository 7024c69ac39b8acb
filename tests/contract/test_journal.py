"""What every journal must do. A new one subclasses `JournalContract` and gives its fixtures."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Protocol

import pytest

from sekisho.adapters import durable
from sekisho.adapters.journal_directory import DirectoryJournal
from sekisho.adapters.journal_memory import MemoryJournal
from sekisho.adapters.sitelog_directory import verify_log
from sekisho.domain.errors import Conflict, Corrupt, UsageError
from sekisho.domain.run import Exit, Run, Stage, Stop
from sekisho.domain.sitelog import ORIGIN, Kind, Link, Record, link
from sekisho.site.journal import Journal
from tests.world import NOW, an_id


class Reopen(Protocol):
    """Gives the journal as the next agent finds it."""

    def __call__(self) -> Journal: ...


def a_run(**changes: object) -> Run:
    usual = Run(job=an_id("job"), epoch=1, submitter="alice", request=b"\x00\xff", taken_at=NOW)
    return replace(usual, **changes)  # type: ignore[arg-type]


def a_record(number: int = 1, **facts: object) -> Record:
    return Record(at=NOW + timedelta(seconds=number), kind=Kind.OFFERED, job="job_x", facts=facts)


class JournalContract:
    """Wants fixtures ``journal`` and ``reopen``."""

    def test_what_need_not_last_is_remembered_all_the_same(
        self, journal: Journal, reopen: Reopen
    ) -> None:
        run = a_run()
        journal.save(run)
        journal.save(replace(run, stage=Stage.ACCEPTED), lasting=False)
        assert reopen().runs() == [replace(run, stage=Stage.ACCEPTED)]

    def test_a_run_is_remembered_with_everything_in_it(
        self, journal: Journal, reopen: Reopen
    ) -> None:
        run = a_run(
            stage=Stage.COLLECTED,
            command="solve",
            attempt=2,
            token="t" * 32,
            argv=("/bin/x", "名前"),
            environment=(("PATH", "/bin"),),
            started_at=NOW,
            ticket="{}",
            stop=Stop.TIME_LIMIT,
            exit=Exit(code=137, signal=9, started_at=NOW, ended_at=NOW),
            result=b"\xff\x00",
            tree="0" * 64,
            ok=True,
            keep_until=NOW,
            told=(Stage.RUNNING,),
            finished_at=NOW,
        )
        journal.save(run)
        assert reopen().runs() == [run]

    def test_the_last_word_on_a_run_counts(self, journal: Journal, reopen: Reopen) -> None:
        run = a_run()
        journal.save(run)
        journal.save(replace(run, stage=Stage.ACCEPTED))
        journal.save(replace(run, stage=Stage.STAGED))
        assert [kept.stage for kept in reopen().runs()] == [Stage.STAGED]

    def test_runs_are_told_apart(self, journal: Journal, reopen: Reopen) -> None:
        runs = [a_run() for _ in range(20)]
        for run in reversed(runs):
            journal.save(run)
        assert reopen().runs() == runs

    def test_a_forgotten_run_is_gone_and_known_for_ever(
        self, journal: Journal, reopen: Reopen
    ) -> None:
        gone, kept = a_run(), a_run()
        journal.save(gone)
        journal.save(kept)
        journal.forget(gone.job)
        again = reopen()
        assert again.runs() == [kept]
        assert (again.knew(gone.job), again.knew(kept.job)) == (True, False)

    def test_forgetting_may_be_repeated_and_needs_no_run(self, journal: Journal) -> None:
        job = an_id("job")
        journal.forget(job)
        journal.forget(job)
        assert (journal.knew(job), journal.runs()) == (True, [])

    def test_a_job_that_comes_back_is_kept_beside_the_memory_of_it(
        self, journal: Journal, reopen: Reopen
    ) -> None:
        run = a_run()
        journal.forget(run.job)
        journal.save(run)
        again = reopen()
        assert (again.knew(run.job), again.runs()) == (True, [run])

    @pytest.mark.parametrize("name", ["", "job_x", "../job", "job_" + "a" * 25 + "/"])
    def test_what_is_no_job_id_names_no_run(self, journal: Journal, name: str) -> None:
        with pytest.raises(UsageError):
            journal.save(a_run(job=name))
        with pytest.raises(UsageError):
            journal.forget(name)

    def test_records_are_chained_across_appends_and_restarts(
        self, journal: Journal, reopen: Reopen
    ) -> None:
        links: list[Link] = []
        previous = ORIGIN
        for number in range(1, 6):
            expected = link(a_record(number, n=number), seq=number, previous=previous)
            previous = expected.digest
            links.append(expected)
        assert journal.append([a_record(n, n=n) for n in (1, 2)]) == links[1]
        assert journal.append([a_record(3, n=3)]) == links[2]
        assert reopen().append([a_record(n, n=n) for n in (4, 5)]) == links[4]

    def test_records_of_many_threads_make_one_chain(self, journal: Journal) -> None:
        made: list[Link] = []

        def append(number: int) -> None:
            made.extend(journal.append([a_record(number, i=i)]) for i in range(25))

        threads = [threading.Thread(target=append, args=(n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(one.seq for one in made) == list(range(1, 201))
        assert len({one.digest for one in made}) == 200


class TestMemoryJournal(JournalContract):
    @pytest.fixture
    def journal(self) -> Journal:
        return MemoryJournal()

    @pytest.fixture
    def reopen(self, journal: Journal) -> Callable[[], Journal]:
        return lambda: journal


class TestDirectoryJournal(JournalContract):
    @pytest.fixture
    def directory(self, tmp_path: Path) -> Iterator[list[DirectoryJournal]]:
        """Give the journals that are open, the present one last."""
        opened = [DirectoryJournal(tmp_path / "state")]
        opened[0].lock()
        yield opened
        opened[-1].unlock()

    @pytest.fixture
    def journal(self, directory: list[DirectoryJournal]) -> Journal:
        return directory[0]

    @pytest.fixture
    def reopen(self, directory: list[DirectoryJournal], tmp_path: Path) -> Callable[[], Journal]:
        def again() -> Journal:
            directory[-1].unlock()
            directory.append(DirectoryJournal(tmp_path / "state"))
            directory[-1].lock()
            return directory[-1]

        return again

    def test_one_journal_has_one_agent(self, journal: DirectoryJournal, tmp_path: Path) -> None:
        second = DirectoryJournal(tmp_path / "state")
        with pytest.raises(Conflict) as refused:
            second.lock()
        assert refused.value.code == "agent.running"
        journal.unlock()
        second.lock()
        second.unlock()

    @pytest.mark.parametrize(
        "damage",
        [b"", b"{", b"null", b"\xff\xfe", b'{"job":1}', b'{"job":"x","stage":"no such stage"}'],
    )
    def test_a_damaged_run_is_told_by_its_name(
        self, journal: Journal, tmp_path: Path, damage: bytes
    ) -> None:
        good, bad = a_run(), a_run()
        journal.save(good)
        journal.save(bad)
        (tmp_path / "state" / "runs" / f"{bad.job}.json").write_bytes(damage)
        with pytest.raises(Corrupt) as told:
            journal.runs()
        assert told.value.params == {"job": bad.job}

    def test_a_torn_id_does_not_swallow_the_next(
        self, journal: Journal, reopen: Reopen, tmp_path: Path
    ) -> None:
        first, second = an_id("job"), an_id("job")
        journal.forget(first)
        with (tmp_path / "state" / "forgotten").open("ab") as file:
            file.write(b"job_0torn")
        again = reopen()
        again.forget(second)
        last = reopen()
        assert (last.knew(first), last.knew(second)) == (True, True)
        assert len((tmp_path / "state" / "forgotten").read_text().split()) == 2

    def test_what_another_process_forgot_is_known_too(
        self, journal: Journal, tmp_path: Path
    ) -> None:
        first, second = an_id("job"), an_id("job")
        journal.forget(first)
        DirectoryJournal(tmp_path / "state").forget(second)
        assert (journal.knew(first), journal.knew(second)) == (True, True)

    def test_unfinished_files_of_a_crash_are_cleared_away(
        self, journal: Journal, reopen: Reopen, tmp_path: Path
    ) -> None:
        state = tmp_path / "state"
        for folder in (state, state / "runs"):
            (folder / f"{durable.TEMPORARY}0").write_bytes(b"half")
        run = a_run()
        journal.save(run)
        assert reopen().runs() == [run]
        assert list(state.rglob(f"{durable.TEMPORARY}*")) == []

    def test_what_is_kept_is_its_owners_alone(self, journal: Journal, tmp_path: Path) -> None:
        journal.save(a_run())
        journal.append([a_record()])
        journal.forget(an_id("job"))
        files = [f for f in (tmp_path / "state").rglob("*") if f.is_file()]
        assert len(files) >= 4
        assert {f.stat().st_mode & 0o077 for f in files} == {0}

    def test_an_agent_is_named_by_its_process(
        self, journal: DirectoryJournal, tmp_path: Path
    ) -> None:
        other = DirectoryJournal(tmp_path / "state")
        assert other.owner() == os.getpid()
        journal.unlock()
        assert other.owner() is None
        assert DirectoryJournal(tmp_path / "nowhere").owner() is None

    def test_the_log_verifies_from_outside(self, journal: Journal, tmp_path: Path) -> None:
        last = journal.append([a_record(n, n=n) for n in range(1, 50)])
        assert verify_log(tmp_path / "state") == (last, None)
