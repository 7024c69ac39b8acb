"""The contract of a lane and of its chunks: in memory, and over HTTPS to a real broker and site."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from sekisho.adapters.http_client import Address, sender
from sekisho.adapters.http_line import HttpLine
from sekisho.adapters.lane_https import HttpsLane
from sekisho.adapters.lane_memory import Files, MemoryLane
from sekisho.adapters.patience import Patience
from sekisho.client.client import Client, new_job_id
from sekisho.client.spec import JobSpec
from sekisho.domain.errors import Conflict, IntegrityError, InvalidTransition, NotFound, UsageError
from sekisho.domain.limits import CHUNK_BYTES
from sekisho.domain.token import Secret
from sekisho.wire.envelope import Outcome, Request, seal
from sekisho.wire.frames import Chunk, digest_of
from sekisho.wire.v1 import SubmitJob
from tests.e2e.conftest import SITE, House

SECONDS = 20
#: Lanes whose other side keeps chunks.
Chunked = MemoryLane | HttpsLane


def copy(request: Request, files: Files) -> tuple[Outcome, Files]:
    """What the command `copy` of the real site does."""
    if request.command != "copy":
        return Outcome(verdict="refused", code="command.unknown"), {}
    outputs = {name.replace("in/", "out/", 1): data for name, data in files.items()}
    return Outcome(verdict="succeeded", exit_code=0), outputs


@pytest.fixture(params=["memory", "https"])
def lane(request: pytest.FixtureRequest) -> Iterator[Chunked]:
    if request.param == "memory":
        yield MemoryLane(copy)
        return
    house: House = request.getfixturevalue("house")
    address = Address(url=house.url, token=Secret(house.token), ca_file=house.ca)
    made = HttpsLane(HttpLine(sender(address), Patience(limit_s=10)))
    yield made
    made.close()


def order(*, command: str = "nosuch", has_inputs: bool = False) -> SubmitJob:
    request = seal(Request(command=command))
    return SubmitJob(id=new_job_id(), site=SITE, request=request, has_inputs=has_inputs)


def piece(data: bytes) -> tuple[Chunk, bytes]:
    return Chunk(digest_of(data), len(data)), data


def test_submitting_twice_is_submitting_once(lane: Chunked) -> None:
    job = order(has_inputs=True)
    first, again = lane.submit(job), lane.submit(job)
    assert (first.id, first.state) == (again.id, again.state) == (job.id, "draft")
    other = SubmitJob(id=job.id, site=SITE, request=seal(Request(command="other")))
    with pytest.raises(Conflict, match=r"job\.different_request"):
        lane.submit(other)


def test_a_job_that_is_not_ours_does_not_exist(lane: Chunked) -> None:
    absent = new_job_id()
    for ask in (lane.view, lane.start, lane.cancel, lane.received):
        with pytest.raises(NotFound):
            ask(absent)
    with pytest.raises(NotFound):
        lane.chunks(absent).missing([piece(b"x")[0]])


def test_what_is_declared_must_be_there_before_the_start(lane: Chunked) -> None:
    job = lane.submit(order(has_inputs=True))
    chunk, data = piece(os.urandom(10))
    port = lane.chunks(job.id)
    assert port.missing([chunk]) == [chunk]
    with pytest.raises(Conflict, match=r"job\.inputs_missing"):
        lane.start(job.id)
    port.send([(chunk, data)])
    assert port.missing([chunk]) == []
    assert lane.start(job.id).state != "draft"
    assert lane.start(job.id).state != "draft"


def test_only_declared_chunks_are_stored_and_only_own_ones_fetched(lane: Chunked) -> None:
    job = lane.submit(order(has_inputs=True))
    other = lane.submit(order(has_inputs=True))
    mine, port = piece(os.urandom(10)), lane.chunks(job.id)
    with pytest.raises(IntegrityError, match=r"chunk\.undeclared"):
        port.send([mine])
    port.missing([mine[0]])
    port.send([mine])
    port.send([mine])
    assert list(port.fetch([mine[0]])) == [mine]
    with pytest.raises(NotFound):
        list(lane.chunks(other.id).fetch([mine[0]]))


def test_wrong_bytes_are_not_stored(lane: Chunked) -> None:
    port = lane.chunks(lane.submit(order(has_inputs=True)).id)
    chunk, _ = piece(b"right")
    port.missing([chunk])
    with pytest.raises(IntegrityError):
        port.send([(chunk, b"wrong")])
    assert port.missing([chunk]) == [chunk]


def test_many_chunks_go_and_come_whole(lane: Chunked) -> None:
    port = lane.chunks(lane.submit(order(has_inputs=True)).id)
    pieces = dict(
        piece(os.urandom(size)) for size in (*range(1, 200), CHUNK_BYTES, CHUNK_BYTES - 1)
    )
    assert port.missing(list(pieces)) == list(pieces)
    port.send(pieces.items())
    assert dict(port.fetch(list(pieces))) == pieces


def test_a_view_waits_for_news_and_not_after_the_end(lane: Chunked) -> None:
    job = lane.submit(order())
    view = lane.view(job.id)
    while view.state != "refused":
        view = lane.view(job.id, version=view.version, wait_s=SECONDS)
    assert view.result is not None
    assert lane.view(job.id, version=view.version, wait_s=SECONDS) == view


def test_a_view_without_news_comes_back_after_its_time(lane: Chunked) -> None:
    job = lane.submit(order(has_inputs=True))
    assert lane.view(job.id, version=job.version, wait_s=0.05).version == job.version


def test_a_cancel_is_answered_with_the_state_and_repeated_without_harm(lane: Chunked) -> None:
    job = lane.submit(order(has_inputs=True))
    assert lane.cancel(job.id).state == "cancelled"
    assert lane.cancel(job.id).state == "cancelled"


def test_a_result_is_received_after_the_end_and_once(lane: Chunked) -> None:
    job = lane.submit(order(has_inputs=True))
    with pytest.raises(InvalidTransition):
        lane.received(job.id)
    lane.cancel(job.id)
    first = lane.received(job.id)
    assert (first.received, lane.received(job.id)) == (True, first)


def test_our_jobs_are_listed_newest_first(lane: Chunked) -> None:
    made = [lane.submit(order(has_inputs=True)).id for _ in range(3)]
    listed = [view.id for view in lane.jobs().jobs]
    assert listed == sorted(listed, reverse=True)
    assert set(made) <= set(listed)
    assert all(view.id < made[1] for view in lane.jobs(after=made[1]).jobs)


def test_the_other_side_tells_its_time_and_its_sites(lane: Chunked) -> None:
    lane.submit(order(has_inputs=True))
    assert SITE in [site.id for site in lane.sites().sites]
    assert lane.clock() is not None


def test_the_whole_way_there_and_back(lane: Chunked, tmp_path: Path) -> None:
    (tmp_path / "in" / "sub").mkdir(parents=True)
    (tmp_path / "in" / "sub" / "file").write_bytes(os.urandom(2 * CHUNK_BYTES))
    spec = JobSpec(site=SITE, command="copy", inputs={"in": tmp_path / "in"}, outputs=["out/**"])
    result = Client(lane).submit(spec).result(tmp_path / "got", timeout=60)
    assert result.files == (tmp_path / "got" / "out" / "sub" / "file",)
    sent = (tmp_path / "in" / "sub" / "file").read_bytes()
    assert result.files[0].read_bytes() == sent


def test_a_lane_takes_no_id_that_is_none(lane: Chunked) -> None:
    with pytest.raises(UsageError):
        Client(lane).job("../../admin/status")
