"""The gate's verbs: what each does, in which state, for whom, and again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest

from sekisho.adapters.push_directory import DirectoryPushStore
from sekisho.adapters.shelf_memory import MemoryShelf
from sekisho.client.client import new_job_id
from sekisho.domain.errors import (
    Conflict,
    IntegrityError,
    NotFound,
    SekishoError,
    StorageFull,
    Unreachable,
)
from sekisho.domain.resources import Venue
from sekisho.domain.run import Stage, Stop
from sekisho.site.gate import Gate
from sekisho.site.push import PushJob
from sekisho.transfer.source import LocalTree, scan
from sekisho.transfer.tree import Tree
from sekisho.wire.envelope import Request, seal
from sekisho.wire.frames import digest_of, frame
from tests.component.gate_world import World, a_submission
from tests.world import a_chunk


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.fixture
def gate(world: World) -> Gate:
    return world.gate()


#: What these are in may be staged anew: on another host, or for another try.
MAY_GO_BACK = (Stage.STAGED, Stage.SUBMITTED, Stage.RUNNING)


# ------------------------------------------------------------------------------- submit


def test_a_job_without_inputs_is_queued_and_its_carrier_told(world: World, gate: Gate) -> None:
    assert gate.submit(a_submission()).state == "queued"
    assert world.carrier.asked == ["news"]


def test_a_job_with_inputs_is_a_draft_that_nobody_carries(world: World, gate: Gate) -> None:
    assert gate.submit(a_submission(has_inputs=True)).state == "draft"
    assert world.carrier.asked == []


def test_the_same_submission_is_the_same_job(gate: Gate) -> None:
    message = a_submission()
    assert gate.submit(message) == gate.submit(message)
    assert len(gate.jobs(None).jobs) == 1


@pytest.mark.parametrize("change", [{"request": b"[]"}, {"has_inputs": True}, {"queue_s": 5.0}])
def test_another_submission_under_the_same_id_is_a_conflict(
    gate: Gate, change: dict[str, object]
) -> None:
    message = a_submission()
    gate.submit(message)
    with pytest.raises(Conflict) as caught:
        gate.submit(msgspec.structs.replace(message, **change))
    assert caught.value.code == "job.different_request"


def test_the_same_submission_of_another_is_a_conflict(world: World, gate: Gate) -> None:
    message = a_submission()
    gate.submit(message)
    with pytest.raises(Conflict):
        world.gate("bob").submit(message)


def test_a_job_for_another_site_is_not_taken(gate: Gate) -> None:
    with pytest.raises(NotFound) as caught:
        gate.submit(a_submission(site="osaka"))
    assert caught.value.code == "site.not_found"
    assert gate.jobs(None).jobs == []


# --------------------------------------------------------------------- whose job it is

VERBS: dict[str, Callable[[Gate, str], object]] = {
    "view": lambda gate, job: gate.view(job, None, 0),
    "start": lambda gate, job: gate.start(job),
    "cancel": lambda gate, job: gate.cancel(job),
    "received": lambda gate, job: gate.received(job),
    "missing": lambda gate, job: gate.missing(job, []),
    "put": lambda gate, job: gate.put(job, []),
    "fetch": lambda gate, job: list(gate.fetch(job, [])),
}


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("whose", ["another's", "nobody's", "dropped"])
def test_what_is_not_the_callers_does_not_exist(world: World, verb: str, whose: str) -> None:
    job = new_job_id()
    if whose != "nobody's":
        world.gate().submit(a_submission(id=job, has_inputs=True))
    if whose == "dropped":
        world.store.update(job, "alice", lambda kept: replace(kept, gone=True))
    gate = world.gate("alice" if whose == "dropped" else "bob")
    with pytest.raises(NotFound) as caught:
        VERBS[verb](gate, job)
    assert caught.value.code == "job.not_found"


@pytest.mark.parametrize("job", ["", "..", "../x", "/etc/passwd", "job_" + "i" * 26, "job_\0"])
def test_what_is_no_id_leads_nowhere(gate: Gate, job: str) -> None:
    with pytest.raises(SekishoError):
        gate.view(job, None, 0)


def test_jobs_are_the_callers_own_newest_first_in_pages(world: World, gate: Gate) -> None:
    ids = sorted(gate.submit(a_submission()).id for _ in range(105))
    world.gate("bob").submit(a_submission())
    first = gate.jobs(None)
    assert [j.id for j in first.jobs] == ids[:4:-1]
    assert first.next == ids[5]
    rest = gate.jobs(first.next)
    assert [j.id for j in rest.jobs] == ids[4::-1]
    assert rest.next is None


def test_a_list_of_jobs_carries_no_results(world: World, gate: Gate) -> None:
    job = gate.submit(a_submission()).id
    world.settled(job, result=b"outcome")
    assert gate.view(job, None, 0).result == b"outcome"
    assert gate.jobs(None).jobs[0].result is None


# -------------------------------------------------------------------------- start, states

SEEN = {
    Stage.TAKEN: "accepted",
    Stage.ACCEPTED: "accepted",
    Stage.STAGED: "accepted",
    Stage.SUBMITTED: "accepted",
    Stage.RUNNING: "running",
    Stage.ENDED: "returning",
    Stage.COLLECTED: "returning",
    Stage.RETURNED: "failed",
    Stage.REFUSED: "refused",
    Stage.FAILED: "failed",
    Stage.CANCELLED: "cancelled",
    Stage.LOST: "lost",
    Stage.DROPPED: "lost",
}


@pytest.mark.parametrize("stage", Stage)
def test_a_jobs_state_is_read_off_its_run(world: World, gate: Gate, stage: Stage) -> None:
    job = gate.submit(a_submission()).id
    world.run(job, stage)
    assert gate.view(job, None, 0).state == SEEN[stage]


def test_a_run_that_went_well_has_succeeded(world: World, gate: Gate) -> None:
    job = gate.submit(a_submission()).id
    world.settled(job)
    assert gate.view(job, None, 0).state == "succeeded"


def test_a_draft_is_started_once_and_a_start_may_be_repeated(world: World, gate: Gate) -> None:
    job = gate.submit(a_submission(has_inputs=True)).id
    assert [gate.start(job).state for _ in range(2)] == ["queued", "queued"]
    assert world.carrier.asked == ["news", "news"]


def test_after_the_start_nothing_more_may_be_brought(gate: Gate) -> None:
    job = gate.submit(a_submission(has_inputs=True)).id
    gate.start(job)
    chunk, data = a_chunk("late")
    for late in (
        lambda: gate.put(job, [frame(chunk.digest, data)]),
        lambda: gate.missing(job, [chunk]),
    ):
        with pytest.raises(Conflict):
            late()


def a_draft_of(gate: Gate, place: Path) -> tuple[str, LocalTree]:
    """Submit a job with an input that has not arrived, nor the list of inputs."""
    (place / "in.txt").write_bytes(b"0123456789" * 200_000)
    local = LocalTree(scan([("in.txt", place / "in.txt")]))
    request = seal(Request(command="double", inputs=local.tree.ref()))
    return gate.submit(a_submission(has_inputs=True, request=request)).id, local


def test_a_start_without_all_inputs_is_refused_until_they_are_there(
    gate: Gate, tmp_path: Path
) -> None:
    job, local = a_draft_of(gate, tmp_path)
    pieces = [frame(c.digest, data) for c, data in local.tree.index()]
    pieces += [frame(c.digest, local.read(c)) for c in local.tree.chunks()]
    assert len(pieces) > 2
    for n, piece in enumerate(pieces):
        with pytest.raises(Conflict) as caught:
            gate.start(job)
        assert caught.value.code == "job.inputs_missing"
        assert caught.value.params["count"] == (1 if n == 0 else len(pieces) - n)
        gate.put(job, [piece])
    assert gate.start(job).state == "queued"


def test_a_start_with_a_list_that_is_wrong_is_left_to_the_manifest_to_refuse(gate: Gate) -> None:
    request = seal(Request(command="x", inputs=Tree().ref()))
    broken = msgspec.json.decode(request)
    data = b"no list"
    broken["inputs"]["index"] = [[digest_of(data), len(data)]]
    message = a_submission(has_inputs=True, request=msgspec.json.encode(broken))
    job = gate.submit(message).id
    gate.put(job, [frame(digest_of(data), data)])
    assert gate.start(job).state == "queued"


@pytest.mark.parametrize("queue_s", [None, 60.0])
def test_a_job_ends_expired_when_its_time_is_over_and_only_its_carrier_says_so(
    world: World, gate: Gate, queue_s: float | None
) -> None:
    view = gate.submit(a_submission(queue_s=queue_s))
    assert view.expires_at - view.created_at == timedelta(seconds=queue_s or 7 * 86_400)
    world.days(8)
    assert gate.view(view.id, None, 0).state == "queued"
    world.store.update(view.id, "alice", lambda kept: replace(kept, expired=True))
    assert gate.view(view.id, None, 0).state == "expired"
    world.carrier.asked.clear()
    gate.view(view.id, None, 0)
    assert world.carrier.asked == []


# ------------------------------------------------------------------------------- cancel


def test_a_cancelled_draft_is_cancelled_and_never_starts(world: World, gate: Gate) -> None:
    job = gate.submit(a_submission(has_inputs=True)).id
    assert gate.cancel(job).state == "cancelled"
    assert gate.start(job).state == "cancelled"
    assert world.store.get(job, "alice").ready is False
    assert world.carrier.asked == []


def test_a_cancelled_draft_takes_no_more_inputs(gate: Gate) -> None:
    """Kills: a disk that is filled for a job that never starts."""
    job = gate.submit(a_submission(has_inputs=True)).id
    gate.missing(job, [])
    gate.put(job, [])
    gate.cancel(job)
    with pytest.raises(Conflict):
        gate.missing(job, [])
    with pytest.raises(Conflict):
        gate.put(job, [])


def test_a_start_before_a_cancel_leaves_the_end_to_the_carrier(world: World, gate: Gate) -> None:
    job = gate.submit(a_submission(has_inputs=True)).id
    gate.start(job)
    view = gate.cancel(job)
    assert (view.state, view.cancel_requested) == ("queued", True)
    assert world.carrier.asked[-1] == "news"


@pytest.mark.parametrize(
    ("stage", "changes"),
    [(Stage.RETURNED, {"ok": True}), (Stage.REFUSED, {}), (Stage.LOST, {})],
)
def test_what_has_ended_is_not_cancelled(
    world: World, gate: Gate, stage: Stage, changes: dict[str, object]
) -> None:
    job = gate.submit(a_submission()).id
    world.settled(job, stage, **changes)
    before = gate.view(job, None, 0)
    assert gate.cancel(job) == before


def test_a_cancel_is_shown_while_the_run_goes_on(world: World, gate: Gate) -> None:
    job = gate.submit(a_submission()).id
    world.run(job, Stage.RUNNING)
    assert gate.cancel(job).cancel_requested is True
    world.run(job, Stage.RUNNING, stop=Stop.CANCEL)
    assert gate.view(job, None, 0).state == "running"


# --------------------------------------------------------------------------------- view


def test_a_view_of_another_version_is_at_once(world: World, gate: Gate) -> None:
    job = gate.submit(a_submission())
    gate.view(job.id, job.version + 1, 30)
    gate.view(job.id, None, 30)
    assert world.pauses == []


def test_a_view_of_the_same_version_waits_its_time_in_growing_steps(
    world: World, gate: Gate
) -> None:
    job = gate.submit(a_submission())
    assert gate.view(job.id, job.version, 30).state == "queued"
    assert sum(world.pauses) == pytest.approx(30)
    assert world.pauses[:-1] == sorted(world.pauses[:-1])
    assert len(world.pauses) < 150
    begun = [sum(world.pauses[:n]) for n in range(len(world.pauses))]
    late = [pause / at for pause, at in zip(world.pauses, begun, strict=True) if at > 1]
    assert max(late) < 0.05  # news come at most a twentieth of the time too late that they took


def test_a_change_ends_the_wait(world: World, gate: Gate) -> None:
    job = gate.submit(a_submission())

    def meanwhile() -> bool:
        if len(world.pauses) == 5:
            world.run(job.id, Stage.RUNNING)
        return False

    world.meanwhile = meanwhile
    assert gate.view(job.id, job.version, 30).state == "running"
    assert len(world.pauses) == 5


def test_a_caller_who_speaks_or_goes_ends_the_wait(world: World, gate: Gate) -> None:
    world.meanwhile = lambda: True
    job = gate.submit(a_submission())
    gate.view(job.id, job.version, 30)
    assert len(world.pauses) == 1


def test_an_ended_job_is_not_waited_for(world: World, gate: Gate) -> None:
    job = gate.submit(a_submission()).id
    world.settled(job)
    gate.view(job, gate.view(job, None, 0).version, 30)
    assert world.pauses == []


def test_every_look_finds_a_carrier_for_what_is_owed_and_wakes_none(
    world: World, gate: Gate
) -> None:
    job = gate.submit(a_submission())
    world.carrier.asked.clear()
    gate.view(job.id, None, 0)
    world.run(job.id, Stage.REFUSED)  # ended, and not yet settled
    gate.view(job.id, None, 0)
    assert world.carrier.asked == ["ensure", "ensure"]
    world.settled(job.id, Stage.REFUSED)
    gate.view(job.id, None, 0)
    assert world.carrier.asked == ["ensure", "ensure"]


# ------------------------------------------------------------------------------- chunks


def test_chunks_are_kept_for_their_submitter_alone(world: World, gate: Gate) -> None:
    job = gate.submit(a_submission(has_inputs=True)).id
    chunk, data = a_chunk("mine")
    gate.put(job, [frame(chunk.digest, data)])
    assert gate.missing(job, [chunk]) == []
    bob = world.gate("bob")
    theirs = bob.submit(a_submission(has_inputs=True)).id
    assert bob.missing(theirs, [chunk]) == [chunk.digest]


def test_frames_may_be_cut_anywhere(gate: Gate) -> None:
    job = gate.submit(a_submission(has_inputs=True)).id
    chunks = [a_chunk(f"number {n}") for n in range(5)]
    stream = b"".join(frame(c.digest, data) for c, data in chunks)
    gate.put(job, [stream[n : n + 7] for n in range(0, len(stream), 7)])
    assert gate.missing(job, [c for c, _ in chunks]) == []


@pytest.mark.parametrize("cut", [1, 35, 36, 40])
def test_half_a_frame_is_an_error(gate: Gate, cut: int) -> None:
    job = gate.submit(a_submission(has_inputs=True)).id
    chunk, data = a_chunk("long enough")
    with pytest.raises(IntegrityError):
        gate.put(job, [frame(chunk.digest, data)[:cut]])
    assert gate.missing(job, [chunk]) == [chunk.digest]


def test_what_came_before_the_line_was_cut_is_kept(gate: Gate) -> None:
    job = gate.submit(a_submission(has_inputs=True)).id
    (first, data), (second, more) = a_chunk("first"), a_chunk("second")

    def pieces() -> Iterator[bytes]:
        yield frame(first.digest, data)
        yield frame(second.digest, more)[:-1]
        raise Unreachable(why="cut")

    with pytest.raises(Unreachable):
        gate.put(job, pieces())
    assert gate.missing(job, [first, second]) == [second.digest]


def test_bytes_under_a_wrong_name_are_not_kept(gate: Gate) -> None:
    job = gate.submit(a_submission(has_inputs=True)).id
    chunk, _ = a_chunk("right")
    with pytest.raises(IntegrityError):
        gate.put(job, [frame(chunk.digest, b"wrong")])
    assert gate.missing(job, [chunk]) == [chunk.digest]


def test_submitters_leave_the_site_room_to_write(world: World) -> None:
    world.chunks = MemoryShelf(capacity=100 << 20)
    gate = world.gate()
    job = gate.submit(a_submission(has_inputs=True)).id
    chunk, data = a_chunk("too much")
    with pytest.raises(StorageFull):
        gate.put(job, [frame(chunk.digest, data)])


@pytest.mark.parametrize("stage", [s for s in Stage if s is not Stage.RETURNED])
def test_nothing_is_handed_out_before_its_release_is_recorded(
    world: World, gate: Gate, stage: Stage
) -> None:
    job = gate.submit(a_submission()).id
    world.run(job, stage, tree="0" * 64)
    with pytest.raises(NotFound):
        gate.fetch(job, [])


def test_a_copy_that_is_not_the_recorded_one_is_not_handed_out(world: World, gate: Gate) -> None:
    """Kills: a gate that hands out what lies there, whatever the site's log says was released."""
    job = gate.submit(a_submission()).id
    place = world.workplace.prepare(job, 1)
    work = Path(place.work_dir, "result.txt")
    work.write_bytes(b"what was released")
    released = world.workplace.stage(place, world.workplace.collect(place).found, None)
    world.settled(job, tree=released.tree.digest, seal=released.seal)
    digests = [chunk.digest for chunk in released.tree.chunks()]
    assert [data for _, data in gate.fetch(job, digests)] == [b"what was released"]
    work.write_bytes(b"what was not")
    other = world.workplace.stage(place, world.workplace.collect(place).found, None)
    for staged in (released, other):
        with pytest.raises(IntegrityError, match=r"site\.staging_changed"):
            world.gate().fetch(job, [chunk.digest for chunk in staged.tree.chunks()])


def test_an_input_is_no_output(world: World, gate: Gate) -> None:
    job = gate.submit(a_submission(has_inputs=True)).id
    chunk, data = a_chunk("input")
    gate.put(job, [frame(chunk.digest, data)])
    gate.start(job)
    world.settled(job)
    with pytest.raises(NotFound):
        gate.fetch(job, [chunk.digest])


# --------------------------------------------------------------------- received, dropped


def test_only_what_has_ended_can_be_received(world: World, gate: Gate) -> None:
    job = gate.submit(a_submission()).id
    with pytest.raises(Conflict):
        gate.received(job)
    world.settled(job)
    first = gate.received(job)
    world.days(0.5)
    assert gate.received(job) == first
    assert first.received is True
    kept = world.store.get(job, "alice").received_at
    assert kept is not None
    assert kept < world.clock.now()


def test_what_was_received_goes_after_a_day_and_never_comes_again(world: World, gate: Gate) -> None:
    message = a_submission()
    job = gate.submit(message).id
    world.settled(job)
    gate.received(job)
    world.days(0.9)
    gate.tidy()
    assert gate.view(job, None, 0).received
    world.days(0.2)
    gate.tidy()
    assert world.store.of(None) == []
    assert world.journal.run(job) is None
    with pytest.raises(Conflict) as caught:
        gate.submit(message)
    assert caught.value.code == "job.forgotten"
    assert world.store.of(None) == []


def test_what_nobody_fetched_is_kept_sixty_days(world: World, gate: Gate) -> None:
    job = gate.submit(a_submission()).id
    world.settled(job)
    world.days(59)
    gate.tidy()
    assert gate.view(job, None, 0).state == "succeeded"
    world.days(2)
    gate.tidy()
    assert gate.jobs(None).jobs == []


def test_a_work_directory_is_kept_as_long_as_the_manifest_says(world: World, gate: Gate) -> None:
    job = gate.submit(a_submission()).id
    world.settled(job, keep_until=world.clock.now() + timedelta(days=90))
    world.workplace.prepare(job, 1)
    gate.received(job)
    world.days(89)
    gate.tidy()
    assert world.workplace.jobs() == [job]
    world.days(2)
    gate.tidy()
    assert world.workplace.jobs() == []


def test_a_work_directory_on_another_host_goes_when_that_host_is_there(
    world: World, gate: Gate
) -> None:
    there, here = (gate.submit(a_submission()).id for _ in range(2))
    world.settled(there, venue=Venue(host="ssh:hpc"))
    world.settled(here)
    for job, workplace in ((there, world.far), (here, world.workplace)):
        workplace.prepare(job, 1)
        gate.received(job)
    world.days(61)
    world.away = True
    gate.tidy()
    assert (world.far.jobs(), world.workplace.jobs()) == ([there], [])
    world.away = False
    gate.tidy()
    assert world.far.jobs() == []
    assert world.store.of(None) == []


def test_an_unfinished_draft_expires_after_a_day_and_goes_after_a_week(
    world: World, gate: Gate
) -> None:
    job = gate.submit(a_submission(has_inputs=True)).id
    chunk, data = a_chunk("late")
    world.days(0.9)
    assert gate.view(job, None, 0).state == "draft"
    world.days(0.2)
    assert gate.view(job, None, 0).state == "expired"
    assert gate.start(job).state == gate.cancel(job).state == "expired"
    with pytest.raises(Conflict):
        gate.put(job, [frame(chunk.digest, data)])
    assert world.carrier.asked == []
    world.days(6)
    gate.tidy()
    assert gate.view(job, None, 0).state == "expired"
    world.days(1)
    gate.tidy()
    with pytest.raises(NotFound):
        gate.start(job)


@pytest.mark.parametrize("days", [2, 400])
def test_what_waits_or_runs_or_is_not_settled_never_goes(
    world: World, gate: Gate, days: int
) -> None:
    waiting = gate.submit(a_submission()).id
    running = gate.submit(a_submission()).id
    world.run(running, Stage.RUNNING)
    ended = gate.submit(a_submission()).id
    world.run(ended, Stage.FAILED)
    world.days(days)
    world.carrier.asked.clear()
    gate.tidy()
    assert {j.id for j in gate.jobs(None).jobs} == {waiting, running, ended}
    assert world.carrier.asked == ["ensure"] * 3


def test_a_drop_that_was_interrupted_goes_on(world: World, gate: Gate) -> None:
    """After the mark, after the purge, after the run is forgotten: gone, and not offered."""
    jobs = [gate.submit(a_submission()).id for _ in range(3)]
    for job in jobs:
        world.settled(job)
        world.store.update(job, "alice", lambda kept: replace(kept, gone=True))
    world.journal.forget(jobs[2])
    world.carrier.asked.clear()
    assert gate.jobs(None).jobs == []
    gate.tidy()
    assert world.store.of(None) == []
    assert all(world.journal.knew(job) for job in jobs)
    assert world.carrier.asked == []


def test_a_draft_that_is_started_while_it_expires_stays(world: World, gate: Gate) -> None:
    job = gate.submit(a_submission(has_inputs=True)).id
    world.days(8.1)

    class Late(DirectoryPushStore):
        """Has the draft started between the look and the drop."""

        def update(
            self, job_id: str, submitter: str, change: Callable[[PushJob], PushJob]
        ) -> PushJob:
            world.store.update(job_id, submitter, lambda kept: replace(kept, ready=True))
            return world.store.update(job_id, submitter, change)

    replace(gate, store=Late(world.place / "push")).tidy()
    assert gate.view(job, None, 0).state == "queued"


def test_one_damaged_record_does_not_keep_the_others(world: World, gate: Gate) -> None:
    bad, good = sorted(gate.submit(a_submission()).id for _ in range(2))
    for job in (bad, good):
        world.settled(job)
        gate.received(job)
    world.run(bad, Stage.RETURNED)
    (world.place / "push" / "carrier" / "runs" / f"{bad}.json").write_bytes(b"{")
    world.days(2)
    gate.tidy()
    assert [j.id for j in world.store.of(None)] == [bad]


@pytest.mark.parametrize(
    ("stage", "kept"),
    [(None, True)]
    + [(stage, stage in (Stage.TAKEN, Stage.ACCEPTED, *MAY_GO_BACK)) for stage in Stage],
)
def test_old_chunks_go_unless_a_job_may_want_them(
    world: World, gate: Gate, tmp_path: Path, stage: Stage | None, *, kept: bool
) -> None:
    """Killed by: forgetting that what is staged, or runs, may be staged anew."""
    other, data = a_chunk("other")
    source = tmp_path / "in"
    source.mkdir()
    (source / "a.dat").write_bytes(b"a" * 3000)
    inputs = LocalTree(scan([("", source)]))
    request = seal(Request(command="solve", inputs=inputs.tree.ref()))
    job = gate.submit(a_submission(request=request, has_inputs=True)).id
    pieces = dict(inputs.tree.index()) | {c: inputs.read(c) for c in inputs.tree.chunks()}
    gate.put(job, [frame(chunk.digest, text) for chunk, text in pieces.items()])
    gate.put(job, [frame(other.digest, data)])
    world.days(0.5)
    gate.tidy()
    asked = [*pieces, other]
    assert gate.missing(job, asked) == []
    gate.start(job)
    if stage is not None:
        world.run(job, stage)
    world.days(6)
    gate.tidy()
    assert len(world.chunks.find("alice", [c.digest for c in asked])) == len(asked)
    world.days(2)
    gate.tidy()
    here = world.chunks.find("alice", [c.digest for c in asked]).keys()
    assert here == ({c.digest for c in pieces} if kept else set())


def test_no_chunk_goes_while_a_draft_may_want_it(world: World, gate: Gate) -> None:
    first = gate.submit(a_submission(has_inputs=True)).id
    chunk, data = a_chunk("old")
    gate.put(first, [frame(chunk.digest, data)])
    gate.cancel(first)
    world.days(8)
    second = gate.submit(a_submission(has_inputs=True)).id
    gate.tidy()
    assert gate.missing(second, [chunk]) == []
    gate.cancel(second)
    gate.tidy()
    assert world.chunks.find("alice", [chunk.digest]) == {}


def test_one_submitters_chores_leave_the_others_alone(world: World, gate: Gate) -> None:
    bob = world.gate("bob")
    job = bob.submit(a_submission(has_inputs=True)).id
    chunk, data = a_chunk("bob's")
    bob.put(job, [frame(chunk.digest, data)])
    world.days(30)
    gate.tidy()
    assert world.chunks.find("bob", [chunk.digest])
    assert [kept.expired for kept in world.store.of("bob") if kept.id == job] == [False]


def test_a_visit_revives_what_was_killed(world: World, gate: Gate) -> None:
    gate.visit()
    assert world.carrier.asked == ["revive"]


def test_the_gate_says_whom_it_takes_the_caller_for(world: World, gate: Gate) -> None:
    identity = gate.identity()
    assert (identity.role, identity.name, identity.at) == ("submitter", "alice", world.clock.now())


@pytest.mark.parametrize("has_inputs", [False, True])
def test_what_expired_is_forgotten_and_never_starts_under_its_id(
    world: World, gate: Gate, *, has_inputs: bool
) -> None:
    """Killed by: forgetting of a job without a run that there was one."""
    message = a_submission(has_inputs=has_inputs)
    job = gate.submit(message).id
    world.days(8)
    if not has_inputs:  # its carrier says so
        world.store.update(job, "alice", lambda kept: replace(kept, expired=True))
    assert gate.view(job, None, 0).state == "expired"
    world.days(1)
    gate.tidy()
    with pytest.raises(NotFound):
        gate.view(job, None, 0)
    with pytest.raises(Conflict) as caught:
        gate.submit(message)
    assert caught.value.code == "job.forgotten"
    assert world.store.of(None) == []
    assert world.journal.run(job) is None
