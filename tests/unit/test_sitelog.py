"""The site's log on a disk: months, clocks that go wrong, torn ends, full disks, many writers."""

from __future__ import annotations

import contextlib
import errno
import json
import multiprocessing
import os
import resource
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from sekisho.adapters import durable
from sekisho.adapters.journal_directory import RESERVE_BYTES, DirectoryJournal
from sekisho.adapters.sitelog_directory import DirectorySiteLog, log_files, read_log, verify_log
from sekisho.domain.errors import Corrupt, SekishoError, StorageFull
from sekisho.domain.run import Run
from sekisho.domain.sitelog import Break, Kind, Record
from tests.mounts import ALONE

NOVEMBER = datetime(2026, 11, 30, 23, 59, 58, tzinfo=UTC)


def a_record(at: datetime = NOVEMBER, **facts: object) -> Record:
    return Record(at=at, kind=Kind.RELEASED, job="job_x", facts=facts)


def a_log(state: Path) -> DirectorySiteLog:
    (state / "log").mkdir(parents=True, exist_ok=True)
    return DirectorySiteLog(state / "log")


def facts_of(state: Path) -> list[dict[str, object]]:
    return [json.loads(line)["facts"] for _, line in read_log(state)]


def test_a_new_month_is_a_new_file_and_the_same_chain(tmp_path: Path) -> None:
    log = a_log(tmp_path)
    times = [NOVEMBER + timedelta(seconds=second) for second in range(5)]
    *_, last = [log.append([a_record(at)]) for at in times]
    assert [f.name for f in log_files(tmp_path / "log")] == ["2026-11.jsonl", "2026-12.jsonl"]
    assert verify_log(tmp_path) == (last, None)
    assert last.seq == 5


def test_who_reads_while_a_record_is_added_sees_all_of_it_or_nothing(tmp_path: Path) -> None:
    """Kills: a log that does not verify because the site is at work."""
    begun, go_on = threading.Event(), threading.Event()

    def slowly(path: Path, data: bytes) -> None:
        durable.append(path, data[:20])
        begun.set()
        assert go_on.wait(60)
        durable.append(path, data[20:])

    first = a_log(tmp_path).append([a_record()])
    with ThreadPoolExecutor(2) as threads:
        adding = threads.submit(DirectorySiteLog(tmp_path / "log", slowly).append, [a_record()])
        assert begun.wait(60)
        reading = threads.submit(verify_log, tmp_path)
        wait([reading], timeout=1)
        go_on.set()
        whole = adding.result(60)
        assert reading.result(60) in [(first, None), (whole, None)]


@pytest.mark.parametrize("reopened", [False, True])
def test_a_clock_that_goes_back_does_not_break_the_order(tmp_path: Path, *, reopened: bool) -> None:
    log = a_log(tmp_path)
    last = None
    for days in (0, 40, 3, -400, 41):
        last = log.append([a_record(NOVEMBER + timedelta(days=days), days=days)])
        log = a_log(tmp_path) if reopened else log
    assert [facts["days"] for facts in facts_of(tmp_path)] == [0, 40, 3, -400, 41]
    assert verify_log(tmp_path) == (last, None)
    assert [f.name for f in log_files(tmp_path / "log")] == ["2026-11.jsonl", "2027-01.jsonl"]


@pytest.mark.parametrize("kept", [0, 1, 7, -1])
@pytest.mark.parametrize("before", [0, 1, 3])
def test_a_torn_end_is_cut_off_and_told(tmp_path: Path, before: int, kept: int) -> None:
    log = a_log(tmp_path)
    for number in range(before):
        log.append([a_record(n=number)])
    log.append([a_record(n="torn")])
    file = tmp_path / "log" / "2026-11.jsonl"
    *whole, end = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join(whole) + end[:kept])
    last = a_log(tmp_path).append([a_record(n="next")])
    told = [{"bytes": len(end[:kept])}] if end[:kept] else []
    assert facts_of(tmp_path) == [{"n": n} for n in range(before)] + told + [{"n": "next"}]
    assert verify_log(tmp_path) == (last, None)


def test_an_end_torn_in_the_last_month_is_told_there(tmp_path: Path) -> None:
    a_log(tmp_path).append([a_record(n=1)])
    november = tmp_path / "log" / "2026-11.jsonl"
    with november.open("ab") as file:
        file.write(b'{"half":')
    last = a_log(tmp_path).append([a_record(NOVEMBER + timedelta(days=1), n=2)])
    kinds = [json.loads(line)["kind"] for _, line in read_log(tmp_path)]
    assert kinds == ["released", "recovered", "released"]
    assert len(november.read_bytes().splitlines()) == 2
    assert verify_log(tmp_path) == (last, None)


def test_a_torn_record_longer_than_a_block_is_cut_off_too(tmp_path: Path) -> None:
    log = a_log(tmp_path)
    log.append([a_record(n="x" * 200_000)])
    with (tmp_path / "log" / "2026-11.jsonl").open("ab") as file:
        file.write(b"y" * 150_000)
    last = a_log(tmp_path).append([a_record(n=2)])
    assert (last.seq, verify_log(tmp_path)) == (3, (last, None))


@pytest.mark.parametrize("last", [b"", b"{}", b"[1]", b'{"seq":"x"}', b'{"seq":null}', b"\xff"])
def test_a_log_whose_end_is_no_record_is_not_written_on(tmp_path: Path, last: bytes) -> None:
    a_log(tmp_path).append([a_record(n=1)])
    with (tmp_path / "log" / "2026-11.jsonl").open("ab") as file:
        file.write(last + b"\n")
    with pytest.raises(Corrupt):
        a_log(tmp_path).append([a_record(n=2)])


def test_the_first_bad_line_is_named_with_its_file(tmp_path: Path) -> None:
    log = a_log(tmp_path)
    for second in range(6):
        log.append([a_record(NOVEMBER + timedelta(seconds=second), n=second)])
    december = tmp_path / "log" / "2026-12.jsonl"
    lines = december.read_bytes().splitlines(keepends=True)
    lines[1] = lines[1].replace(b'"n":3', b'"n":4')
    december.write_bytes(b"".join(lines))
    good, broken = verify_log(tmp_path)
    assert broken == ("2026-12.jsonl", Break(3, "chain"))
    assert good is not None
    assert good.seq == 4


def test_a_month_that_was_taken_away_is_noticed(tmp_path: Path) -> None:
    log = a_log(tmp_path)
    for month in range(3):
        log.append([a_record(NOVEMBER + timedelta(days=31 * month))])
    log_files(tmp_path / "log")[1].unlink()
    assert verify_log(tmp_path)[1] == ("2027-01.jsonl", Break(1, "chain"))


def append_some(state: str, name: str) -> None:
    log = a_log(Path(state))
    for number in range(40):
        log.append([a_record(name=name, n=number), a_record(name=name, n=number)])


def test_records_of_many_processes_make_one_chain(tmp_path: Path) -> None:
    a_log(tmp_path)
    context = multiprocessing.get_context("spawn")
    writers = [
        context.Process(target=append_some, args=(str(tmp_path), f"writer-{n}")) for n in range(4)
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
    last, broken = verify_log(tmp_path)
    assert [writer.exitcode for writer in writers] == [0] * 4
    assert broken is None
    assert last is not None
    assert last.seq == 4 * 40 * 2


# --- a full disk --------------------------------------------------------------------------------

ON_A_SMALL_DISK = """\
mount -t tmpfs -o size=2m none "$1" || exit 99
exec "$2" -m tests.unit.test_sitelog "$1"
"""


def a_run(number: int = 0) -> Run:
    job = f"job_{number:026d}"
    return Run(job=job, epoch=1, submitter="alice", request=b"", taken_at=NOVEMBER)


def told(step: Callable[[], object]) -> str:
    """Return what ``step`` raised."""
    try:
        step()
    except SekishoError as error:
        return error.code
    return "done"


def filled(folder: Path) -> Path:
    """Return a file that takes all the room of the disk."""
    ballast = folder / "ballast"
    with ballast.open("ab", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(bytes(4096)):
            pass
    return ballast


def forget_many(journal: DirectoryJournal) -> None:
    for number in range(3, 200):
        journal.forget(a_run(number).job)


def live_through_a_full_disk(folder: Path) -> dict[str, object]:
    """Fill the disk, write, write until nothing goes any more, free it, write again."""
    state = folder / "state"
    seen: dict[str, object] = {}
    journal = DirectoryJournal(state)
    journal.lock()
    seen["reserve"] = (state / "reserve").stat().st_size
    journal.save(a_run())
    ballast = filled(folder)
    seen["end"] = told(lambda: journal.append([a_record(n="x" * 9000)]))
    seen["reserve given up"] = not (state / "reserve").exists()
    seen["run"] = told(lambda: journal.save(a_run(1)))
    filled(folder)
    seen["full"] = [
        told(lambda: journal.append([a_record(n="x" * 9000)])),
        told(lambda: journal.save(a_run(2))),
        told(lambda: forget_many(journal)),
    ]
    seen["kept"] = [len(journal.runs()), verify_log(state)[1]]
    journal.unlock()
    journal.lock()
    seen["started on a full disk without a reserve"] = not (state / "reserve").exists()
    ballast.unlink()
    seen["later"] = told(lambda: journal.append([a_record(n="x" * 9000)]))
    seen["broken"] = verify_log(state)[1]
    journal.unlock()
    journal.lock()
    seen["reserve again"] = (state / "reserve").stat().st_size
    return seen


def meeting(state: Path, threads: int) -> tuple[DirectorySiteLog, list[int]]:
    """Return a log whose first write waits until ``threads`` others wait; and its writes' lines."""
    sizes: list[int] = []

    def write(path: Path, data: bytes) -> None:
        while not sizes and len(log._waiting) < threads:  # noqa: SLF001 what this is about
            pass
        sizes.append(data.count(b"\n"))
        durable.append(path, data)

    (state / "log").mkdir(parents=True)
    log = DirectorySiteLog(state / "log", write)
    return log, sizes


def test_threads_that_meet_share_a_sync_and_each_gets_its_own_link(tmp_path: Path) -> None:
    log, sizes = meeting(tmp_path, 7)
    with ThreadPoolExecutor(8) as threads:
        groups = [[a_record(n=n, of=0), a_record(n=n, of=1)] for n in range(8)]
        links = list(threads.map(log.append, groups))
    assert sizes == [2, 14]
    assert verify_log(tmp_path) == (max(links, key=lambda link: link.seq), None)
    facts = facts_of(tmp_path)
    assert [facts[link.seq - 1] for link in links] == [{"n": n, "of": 1} for n in range(8)]
    assert all(facts[link.seq - 2] == {"n": n, "of": 0} for n, link in enumerate(links))


def test_threads_that_meet_at_a_full_disk_all_hear_of_it_and_nothing_is_added(
    tmp_path: Path,
) -> None:
    log, sizes = meeting(tmp_path, 3)
    full = iter([False, True, False])
    write = log._write  # noqa: SLF001 as above

    def narrow(path: Path, data: bytes) -> None:
        if next(full):
            raise OSError(errno.ENOSPC, "full")
        write(path, data)

    log._write = narrow  # noqa: SLF001 as above
    with ThreadPoolExecutor(4) as threads:
        tries = [threads.submit(log.append, [a_record(n=n)]) for n in range(4)]
    faults = [one.exception() for one in tries]
    assert sorted(type(fault).__name__ for fault in faults) == ["NoneType", *["OSError"] * 3]
    last = log.append([a_record(n=9)])
    assert (last.seq, sizes) == (2, [1, 1])
    assert verify_log(tmp_path) == (last, None)


def test_a_full_disk_gives_up_its_reserve_so_that_an_end_can_be_told(tmp_path: Path) -> None:
    """A real file system of 2 MiB, in a name space of its own."""
    done = subprocess.run(
        [*ALONE, "sh", "-c", ON_A_SMALL_DISK, "sh", tmp_path, sys.executable],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "reserve": RESERVE_BYTES,
        "end": "done",
        "reserve given up": True,
        "run": "done",
        "full": ["storage.full"] * 3,
        "kept": [2, None],
        "started on a full disk without a reserve": True,
        "later": "done",
        "broken": None,
        "reserve again": RESERVE_BYTES,
    }


def test_a_limit_on_the_size_of_files_counts_as_a_full_disk(tmp_path: Path) -> None:
    log = DirectoryJournal(tmp_path)
    log.lock()
    last = log.append([a_record(n=1)])
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300, hard))
    try:
        with pytest.raises(StorageFull):
            log.append([a_record(n="x" * 500)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert verify_log(tmp_path) == (last, None)
    log.unlock()


if __name__ == "__main__":
    sys.stdout.write(json.dumps(live_through_a_full_disk(Path(sys.argv[1]))))
