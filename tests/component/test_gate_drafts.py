"""Inputs that come to a gate before their request: a draft that is described once, later."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO

import msgspec
import pytest

from sekisho.adapters.gate_stdio import GateStdio
from sekisho.adapters.hosts.ssh import SshHost
from sekisho.adapters.job_notes import JobNotes
from sekisho.adapters.lane_gate import GateLane
from sekisho.adapters.lane_push import PushLane, PushSite
from sekisho.adapters.patience import Patience
from sekisho.adapters.shelf_memory import MemoryShelf
from sekisho.client.client import Client, new_job_id
from sekisho.client.job import Job
from sekisho.client.spec import JobSpec
from sekisho.compose.push import push_lane
from sekisho.config.client import load_client
from sekisho.domain.errors import Conflict, NotFound
from sekisho.domain.run import Stage
from sekisho.site.gate import Gate
from sekisho.site.push import lacking
from sekisho.transfer.ahead import WORTH_BYTES
from sekisho.transfer.progress import Progress, unseen
from sekisho.wire.frames import Frame, frame
from sekisho.wire.stdio import Packets
from sekisho.wire.v1 import JobView, OpenDraft, SubmitJob
from tests.component.gate_world import SITE, World, a_submission
from tests.component.test_client_ahead import ENOUGH, SECONDS
from tests.contract.test_gate_chunks import piped
from tests.world import a_chunk


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.fixture
def gate(world: World) -> Gate:
    return world.gate()


def opened(gate: Gate) -> str:
    return gate.open(OpenDraft(id=new_job_id(), site=SITE)).id


def test_inputs_may_come_before_the_request_and_nobody_carries_them(
    world: World, gate: Gate
) -> None:
    job = opened(gate)
    assert gate.view(job, None, 0).state == "draft"
    chunk, data = a_chunk("early")
    gate.put(job, [frame(chunk.digest, data)])
    assert gate.missing(job, [chunk]) == []
    assert world.carrier.asked == []
    assert not any(kept.ready for kept in world.store.of(None))


def test_a_draft_is_described_once_and_is_then_like_any_other(world: World, gate: Gate) -> None:
    job = opened(gate)
    message = a_submission(id=job, has_inputs=True, queue_s=60.0)
    assert gate.submit(message).state == "draft"
    assert gate.submit(message) == gate.submit(message)
    kept = world.store.get(job, "alice")
    assert (kept.request, kept.ready) == (message.request, False)
    assert (kept.expires_at - world.clock.now()).total_seconds() == 60
    assert gate.start(job).state == "queued"


@pytest.mark.parametrize("change", [{"request": b"[]"}, {"has_inputs": False}, {"queue_s": 5.0}])
def test_a_draft_that_was_described_is_not_described_anew(
    gate: Gate, change: dict[str, object]
) -> None:
    message = a_submission(id=opened(gate), has_inputs=True)
    gate.submit(message)
    with pytest.raises(Conflict) as caught:
        gate.submit(msgspec.structs.replace(message, **change))
    assert caught.value.code == "job.different_request"


def test_opening_again_takes_no_request_away(world: World, gate: Gate) -> None:
    message = a_submission(has_inputs=True)
    before = gate.submit(message)
    assert gate.open(OpenDraft(id=message.id, site=SITE)) == before
    assert world.store.get(message.id, "alice").request == message.request


def test_what_was_not_described_is_not_started(world: World, gate: Gate) -> None:
    job = opened(gate)
    with pytest.raises(Conflict) as caught:
        gate.start(job)
    assert caught.value.code == "job.not_described"
    assert world.carrier.asked == []


def test_a_draft_is_its_submitters_alone(world: World, gate: Gate) -> None:
    job = opened(gate)
    other = world.gate("bob")
    calls: list[Callable[[], object]] = [
        lambda: other.open(OpenDraft(id=job, site=SITE)),
        lambda: other.submit(a_submission(id=job)),
    ]
    for call in calls:
        with pytest.raises(Conflict):
            call()
    with pytest.raises(NotFound):
        other.put(job, [])
    assert world.store.get(job, "alice").request == b""


def test_a_draft_for_another_site_is_not_kept(world: World, gate: Gate) -> None:
    with pytest.raises(NotFound) as caught:
        gate.open(OpenDraft(id=new_job_id(), site="osaka"))
    assert caught.value.code == "site.not_found"
    assert world.store.of(None) == []


def test_a_draft_that_ended_is_not_described_any_more(world: World, gate: Gate) -> None:
    cancelled, expired = opened(gate), opened(gate)
    gate.cancel(cancelled)
    world.days(1.1)
    assert gate.view(expired, None, 0).state == "expired"
    for job, state in ((cancelled, "cancelled"), (expired, "expired")):
        assert gate.submit(a_submission(id=job)).state == state
        assert not world.store.get(job, "alice").ready
    assert world.carrier.asked == []


def test_a_draft_that_was_dropped_is_not_opened_again(world: World, gate: Gate) -> None:
    job = opened(gate)
    world.settled(job, Stage.REFUSED)
    world.journal.forget(job)
    world.store.remove(job)
    with pytest.raises(Conflict) as caught:
        gate.open(OpenDraft(id=job, site=SITE))
    assert caught.value.code == "job.forgotten"


class Heard(GateLane):
    """A lane to a gate that writes down how a job begins."""

    def __init__(self, world: World) -> None:
        def serve(incoming: IO[bytes], outgoing: IO[bytes]) -> None:
            GateStdio(world.gate(), Packets(incoming, outgoing)).serve()

        super().__init__(SITE, lambda: piped(serve), Patience(limit_s=0))
        self.asked: list[str] = []

    def open(self, draft: OpenDraft) -> JobView:
        self.asked.append("open")
        return super().open(draft)

    def submit(self, job: SubmitJob) -> JobView:
        self.asked.append("submit")
        return super().submit(job)


class ToldShelf(MemoryShelf):
    """A shelf that tells when something has come."""

    def __init__(self, world: World) -> None:
        super().__init__(now=world.clock.now)
        self.come = threading.Event()

    def put(self, space: str, frames: Iterable[Frame]) -> None:
        super().put(space, frames)
        self.come.set()


@pytest.fixture
def heard(world: World) -> Iterator[Heard]:
    lane = Heard(world)
    yield lane
    lane.close()


def submitted(heard: Heard, place: Path, *, drafts: bool, reading: Progress = unseen) -> Job:
    """Submit a job with a large input as the settings of a gated site have it."""
    site = PushSite(name=SITE, host="far", drafts=lambda: drafts)
    lane = PushLane(site, JobNotes(place / "notes"), lambda _: heard)
    (place / "mesh").write_bytes(os.urandom(2 * WORTH_BYTES))
    spec = JobSpec(site=SITE, command="double", inputs=[place / "mesh"])
    return Client(lane).submit(spec, reading=reading)


def test_a_large_input_is_at_the_gate_before_its_last_byte_is_read(
    world: World, heard: Heard, tmp_path: Path
) -> None:
    """Kills: hashing everything before the first byte is sent."""
    shelf = world.chunks = ToldShelf(world)
    before: list[str] = []

    def reading(done: int, total: int) -> None:
        if ENOUGH < done < total and not before:
            assert shelf.come.wait(SECONDS)
            before.extend(heard.asked)

    job = submitted(heard, tmp_path, drafts=True, reading=reading)
    assert before == ["open"]
    assert heard.asked == ["open", "submit"]
    kept = world.store.get(job.id, "alice")
    assert (kept.ready, lacking(shelf, kept)) == (True, 0)


def test_where_inputs_may_not_come_before_it_the_request_comes_first(
    world: World, heard: Heard, tmp_path: Path
) -> None:
    job = submitted(heard, tmp_path, drafts=False)
    assert heard.asked == ["submit"]
    assert lacking(world.chunks, world.store.get(job.id, "alice")) == 0


@pytest.mark.parametrize(
    ("settings", "connected", "taken"),
    [
        pytest.param("", True, True, id="a gate that we are connected to"),
        pytest.param("", False, False, id="a login would have to be made"),
        pytest.param('before = ["/bin/true"]', True, False, id="a host would be begun"),
        pytest.param('after = ["/bin/true"]', True, False, id="a host would be released"),
        pytest.param('kind = "bare"', True, False, id="rsync reads by itself"),
    ],
)
def test_inputs_come_before_their_request_where_that_begins_nothing(
    world: World, tmp_path: Path, settings: str, *, connected: bool, taken: bool
) -> None:
    file = tmp_path / "client.toml"
    file.write_text(f'[site.{SITE}]\nmode = "ssh"\nhost = "far"\n{settings}\n')
    file.chmod(0o600)
    notes = JobNotes(tmp_path / "notes")
    draft = OpenDraft(id=new_job_id(), site=SITE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SshHost, "connected", lambda _: connected)
        patch.setattr(GateLane, "open", lambda _, draft: world.gate().open(draft))
        view = push_lane(SITE, load_client(file), notes, Patience(limit_s=0)).open(draft)
    assert (view is not None) == taken
    assert (notes.find(draft.id) is not None) == taken
