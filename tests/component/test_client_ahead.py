"""Large inputs are on their way while they are still read; whatever happens, the job is whole."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from sekisho.adapters.chunks_memory import MemoryChunks
from sekisho.adapters.lane_memory import Files, MemoryLane
from sekisho.client.client import Client, new_job_id
from sekisho.client.spec import JobSpec
from sekisho.domain.errors import (
    Conflict,
    IntegrityError,
    NotFound,
    QuotaExceeded,
    SekishoError,
    Unreachable,
)
from sekisho.domain.limits import MIB
from sekisho.transfer.ahead import HELD_BYTES, WORTH_BYTES, Ahead
from sekisho.transfer.remembered import Forgetful, Look
from sekisho.transfer.source import LocalTree, scan
from sekisho.wire.envelope import Outcome, Request
from sekisho.wire.frames import Chunk, digest_of
from sekisho.wire.v1 import JobView, OpenDraft, SubmitJob

SECONDS = 60.0
#: So much is read when enough has been found, whatever the size of a chunk.
ENOUGH = WORTH_BYTES + 2 * MIB


def silent(_request: Request, _files: Files) -> tuple[Outcome, Files]:
    return Outcome(verdict="succeeded", exit_code=0), {}


class Seen(MemoryLane):
    """A lane that writes down what is asked of it, and tells when a chunk has come."""

    def __init__(self) -> None:
        super().__init__(silent, eager=False)
        self.asked: list[str] = []
        self.sent: list[Chunk] = []
        self.come = threading.Event()
        self.faults: dict[str, SekishoError] = {}

    def open(self, draft: OpenDraft) -> JobView:
        self.met("open")
        return super().open(draft)

    def submit(self, job: SubmitJob) -> JobView:
        self.met("submit")
        return super().submit(job)

    def start(self, job_id: str) -> JobView:
        self.met("start")
        return super().start(job_id)

    def chunks(self, job_id: str) -> Any:
        return Watched(super().chunks(job_id), self)

    def met(self, what: str) -> None:
        self.asked.append(what)
        if what in self.faults:
            raise self.faults.pop(what)


class Watched:
    """Chunks of a job whose every arrival is told."""

    def __init__(self, kept: MemoryChunks, lane: Seen) -> None:
        self._kept = kept
        self._lane = lane

    def missing(self, chunks: Sequence[Chunk]) -> list[Chunk]:
        return self._kept.missing(chunks)

    def send(self, chunks: Iterable[tuple[Chunk, bytes]]) -> None:
        def told() -> Iterator[tuple[Chunk, bytes]]:
            for chunk, data in chunks:
                self._kept.send([(chunk, data)])
                self._lane.sent.append(chunk)
                self._lane.come.set()
                self._lane.met("send")
                yield chunk, data

        for _ in told():
            pass

    def fetch(self, chunks: Sequence[Chunk]) -> Any:
        return self._kept.fetch(chunks)


@pytest.fixture
def lane() -> Seen:
    return Seen()


def large(place: Path, size: int = 2 * WORTH_BYTES) -> Path:
    """Make a file of that size, no part of which is as another."""
    with place.open("wb") as file:
        for number in range(size >> 16):
            file.write(digest_of(str(number).encode()).encode() * 1024)
    return place


def spec(place: Path) -> JobSpec:
    return JobSpec(site="tohoku", command="solve", inputs=[place])


def whole(lane: Seen, job: str, place: Path) -> bool:
    """Say whether the site gets what is in ``place``."""
    got: dict[str, bytes] = {}

    def keep(_request: Request, files: Files) -> tuple[Outcome, Files]:
        got.update(files)
        return Outcome(verdict="succeeded", exit_code=0), {}

    lane._serve = keep  # noqa: SLF001 (the site, as this test wants it)
    lane.work(job)
    return got == {place.name: place.read_bytes()}


def test_the_first_chunks_are_there_before_the_last_is_read(lane: Seen, tmp_path: Path) -> None:
    """Kills: reading and hashing everything before the first byte is sent."""
    place = large(tmp_path / "mesh")
    before: list[str] = []

    def reading(done: int, total: int) -> None:
        if ENOUGH < done < total and not before:
            assert lane.come.wait(SECONDS)
            before.extend(lane.asked)

    job = Client(lane).submit(spec(place), reading=reading)
    assert "submit" not in before
    assert before[:2] == ["open", "send"]
    assert len(lane.sent) == len(set(lane.sent))  # nothing goes twice
    assert whole(lane, job.id, place)


def test_the_list_goes_before_what_is_still_waiting(lane: Seen, tmp_path: Path) -> None:
    """The site can begin with the list: it does not come after all that was read."""
    place = large(tmp_path / "mesh")
    told = threading.Event()

    class Held(Watched):
        def send(self, chunks: Iterable[tuple[Chunk, bytes]]) -> None:
            given = iter(chunks)
            first = next(given)
            if first[0].size > 1 << 17:  # no list: it waits until there is one
                assert told.wait(SECONDS)
            else:
                told.set()
            super().send(iter([first, *given]))

    lane.chunks = lambda job_id: Held(MemoryLane.chunks(lane, job_id), lane)  # type: ignore[method-assign]
    job = Client(lane).submit(spec(place))
    assert told.is_set()
    assert whole(lane, job.id, place)


def test_what_is_small_costs_no_request_more(lane: Seen, tmp_path: Path) -> None:
    place = large(tmp_path / "mesh", WORTH_BYTES - 4 * MIB)
    Client(lane).submit(spec(place))
    assert "open" not in lane.asked


def test_many_small_files_go_ahead_as_well(lane: Seen, tmp_path: Path) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(300):
        (folder / str(number)).write_bytes(bytes([number % 251]) * 65_000 + str(number).encode())
    job = Client(lane).submit(spec(folder))
    assert lane.asked[0] == "open"
    lane.work(job.id)
    assert lane.view(job.id).state == "succeeded"


def test_a_remembered_file_costs_no_request_more(lane: Seen, tmp_path: Path) -> None:
    """A sweep over one mesh reads it once: there is nothing to be read beside its sending."""

    place = large(tmp_path / "mesh")
    (known,) = LocalTree(scan([("", place)])).tree.files

    class Memory(Forgetful):
        def recall(self, look: Look) -> Sequence[Chunk] | None:  # type: ignore[override]
            return known.chunks if look == Look.of(place.stat()) else None

    job = Client(lane, Memory()).submit(spec(place))
    assert lane.asked[0] == "submit"
    assert whole(lane, job.id, place)


@pytest.mark.parametrize(
    "fault", [NotFound("route.not_found"), Unreachable(), QuotaExceeded("quota.jobs")]
)
def test_without_a_way_ahead_everything_goes_the_ordinary_way(
    lane: Seen, tmp_path: Path, fault: SekishoError
) -> None:
    """An older broker has no drafts; what is wrong with a submission is said by the submission."""
    place = large(tmp_path / "mesh")
    lane.faults["open"] = fault
    job = Client(lane).submit(spec(place))
    assert {"open", "submit", "start"} <= set(lane.asked)
    assert whole(lane, job.id, place)


def test_what_stops_the_sending_is_told_and_the_same_call_goes_on(
    lane: Seen, tmp_path: Path
) -> None:
    place = large(tmp_path / "mesh")
    lane.faults["send"] = Unreachable(why="cut")
    job_id = new_job_id()
    with pytest.raises(Unreachable):
        Client(lane).submit(spec(place), job_id=job_id)
    arrived = set(lane.sent)
    lane.sent.clear()
    job = Client(lane).submit(spec(place), job_id=job_id)
    assert arrived
    assert not arrived & set(lane.sent)
    assert whole(lane, job.id, place)


def test_a_job_that_was_submitted_before_is_found_and_sent_nothing(
    lane: Seen, tmp_path: Path
) -> None:
    place = large(tmp_path / "mesh")
    client = Client(lane)
    first = client.submit(spec(place))
    lane.sent.clear()
    again = client.submit(spec(place), job_id=first.id)
    assert (again.id, lane.sent) == (first.id, [])
    (tmp_path / "mesh").write_bytes(b"another")
    with pytest.raises(Conflict):
        client.submit(spec(place), job_id=first.id)


def test_a_file_that_changes_while_it_is_read_makes_no_job(lane: Seen, tmp_path: Path) -> None:
    place = large(tmp_path / "mesh")

    def reading(done: int, total: int) -> None:
        if ENOUGH < done < total and lane.come.wait(SECONDS):
            with place.open("r+b") as file:
                file.write(b"changed")

    with pytest.raises(IntegrityError) as caught:
        Client(lane).submit(spec(place), reading=reading)
    assert caught.value.code == "input.changed"
    assert "submit" not in lane.asked


def submit_late(lane: Seen, place: Path) -> None:
    """Submit ``place``, of which nothing is sent before its end changed, after it was read."""
    hold = threading.Event()

    class Late(Watched):
        def send(self, chunks: Iterable[tuple[Chunk, bytes]]) -> None:
            assert hold.wait(SECONDS)
            super().send(chunks)

    lane.chunks = lambda job_id: Late(MemoryLane.chunks(lane, job_id), lane)  # type: ignore[method-assign]

    def known(_job: str) -> None:
        with place.open("r+b") as file:
            file.seek(-100, 2)
            file.write(b"changed")
        hold.set()

    Client(lane).submit(spec(place), on_known=known)


def test_a_file_that_changes_after_it_was_read_is_named(lane: Seen, tmp_path: Path) -> None:
    """What is sent is not what the list names: the job does not start. Kills: keeping it all."""
    with pytest.raises(IntegrityError) as caught:
        submit_late(lane, large(tmp_path / "mesh", HELD_BYTES + WORTH_BYTES))
    assert caught.value.code == "input.changed"
    assert "start" not in lane.asked


def test_what_was_read_is_sent_as_it_was(lane: Seen, tmp_path: Path) -> None:
    """Kills: reading everything twice."""
    place = large(tmp_path / "mesh", HELD_BYTES)
    before = place.read_bytes()
    submit_late(lane, place)
    assert place.read_bytes() != before
    place.write_bytes(before)
    assert whole(lane, lane.jobs().jobs[0].id, place)


def test_there_is_room_again_when_something_has_gone() -> None:
    """Kills: keeping only what was read first."""
    sent = threading.Semaphore(0)
    chunks = [bytes([number]) * MIB for number in range(4 * HELD_BYTES // MIB)]
    again: list[Chunk] = []

    def content(chunk: Chunk) -> bytes:
        again.append(chunk)
        return chunks[0]

    class Slow(MemoryChunks):
        def send(self, chunks: Iterable[tuple[Chunk, bytes]]) -> None:
            for one in chunks:
                super().send([one])
                sent.release()

    ahead = Ahead(Slow)
    for number, data in enumerate(chunks):
        ahead.found(Chunk(digest_of(data), MIB), data, content)
        if number >= WORTH_BYTES // MIB - 1:
            assert sent.acquire(timeout=SECONDS)
    assert len(list(ahead.gone())) == len(chunks)
    assert not again


def test_progress_counts_every_byte_once(lane: Seen, tmp_path: Path) -> None:
    place = large(tmp_path / "mesh")
    seen: list[tuple[int, int]] = []
    Client(lane).submit(spec(place), progress=lambda done, total: seen.append((done, total)))
    assert seen[-1][0] == seen[-1][1] > place.stat().st_size
    assert all(before[0] <= after[0] for before, after in pairwise(seen))
    assert len({total for _, total in seen}) == 1


def test_who_stops_leaves_nothing_that_goes_on(lane: Seen, tmp_path: Path) -> None:
    place = large(tmp_path / "mesh")

    def reading(done: int, total: int) -> None:
        if ENOUGH < done < total:
            assert lane.come.wait(SECONDS)
            raise KeyboardInterrupt

    before = set(threading.enumerate())
    with pytest.raises(KeyboardInterrupt):
        Client(lane).submit(spec(place), reading=reading)
    for thread in set(threading.enumerate()) - before:
        thread.join(SECONDS)
        assert not thread.is_alive()
    assert "submit" not in lane.asked


def test_a_chunk_is_told_of_once_and_a_hole_never() -> None:
    begun: list[str] = []
    ahead = Ahead(lambda: begun.append("once"))
    chunk = Chunk(digest_of(b"x"), WORTH_BYTES // 2)
    for told in (chunk, chunk, chunk, Chunk("", WORTH_BYTES)):
        ahead.found(told, b"", lambda _chunk: b"")
    assert list(ahead.gone()) == []
    assert not begun
