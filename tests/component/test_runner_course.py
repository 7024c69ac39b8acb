"""What becomes of a job from offer to result: the good course, refusals, faults, full disks."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import anyio
import pytest

from sekisho.adapters.scheduler_memory import Play
from sekisho.domain.access import Submitters
from sekisho.domain.errors import (
    Conflict,
    Corrupt,
    IntegrityError,
    NotFound,
    Refused,
    SekishoError,
    StorageFull,
    TooLarge,
    Unauthenticated,
    Unavailable,
    UsageError,
)
from sekisho.domain.files import Pattern
from sekisho.domain.limits import MAX_CHUNK_BYTES
from sekisho.domain.manifest import InputRule
from sekisho.domain.run import Stage
from sekisho.domain.sitelog import Kind, verify
from sekisho.site.release import MAX_DAMAGED, ROOM_SECONDS
from sekisho.wire.envelope import ChunkRef, Outcome, Request, TreeRef, seal
from tests.site_world import GOOD, RESULT, USER, World, a_command, a_manifest, leaves
from tests.virtual_time import simulate


def carried(world: World, *jobs: str) -> list[str]:
    """Return the states in which ``jobs`` end."""

    async def story() -> list[str]:
        async with world.serving():
            return [await world.ended(job) for job in jobs]

    return simulate(world.clock, story)


def end_of(world: World, job: str) -> tuple[str, str | None]:
    state = carried(world, job)[0]
    return state, world.outcome(job).code


def test_a_job_runs_once_and_only_what_was_asked_and_permitted_comes_back(tmp_path: Path) -> None:
    world = World(tmp_path)
    secret = leaves(result_txt=RESULT, secret_txt=b"mesh", more_csv=b"1,2")
    world.plays["solve"] = [Play(seconds=5, leave=secret, stdout="done\n")]
    job = world.submit(inputs={"a.dat": b"1"}, outputs=["result.txt"], n=7)
    assert carried(world, job) == ["succeeded"]
    assert world.outputs(job) == {"result.txt": RESULT, "計算標準出力.txt": b"done\n"}
    assert len(world.scheduler.started) == 1


def test_the_command_gets_its_inputs_its_arguments_and_an_environment_from_empty(
    tmp_path: Path,
) -> None:
    world = World(tmp_path)
    seen: dict[str, bytes] = {}
    look = Play(leave=lambda work: seen.update({p.name: p.read_bytes() for p in work.iterdir()}))
    world.plays["solve"] = [look]
    job = world.submit(inputs={"a.dat": b"1", "b.dat": b"22"}, outputs=[], n=7)
    assert carried(world, job) == ["succeeded"]
    run = world.run(job)
    assert run is not None
    assert seen == {"a.dat": b"1", "b.dat": b"22"}
    assert run.argv == ("/opt/solve", "7")
    assert sorted(dict(run.environment)) == ["CALC_DIR", "PATH"]


def test_what_a_job_leaves_is_kept_from_the_end_that_it_may_have(tmp_path: Path) -> None:
    """Kills: a directory that is past its retention, counted from the start, when it ends."""
    world = World(tmp_path)
    job = world.submit(outputs=[])
    assert carried(world, job) == ["succeeded"]
    run, command = world.run(job), world.manifest.commands["solve"]
    assert run is not None
    assert run.started_at is not None
    assert run.keep_until == run.started_at + command.time_limit + command.retention


def test_what_happened_is_in_the_log_in_its_order_and_the_chain_holds(tmp_path: Path) -> None:
    world = World(tmp_path)
    job = world.submit()
    carried(world, job)
    kinds = [record.kind for record in world.journal.records if record.job == job]
    assert kinds == [
        Kind.OFFERED,
        Kind.ACCEPTED,
        Kind.STARTED,
        Kind.ENDED,
        Kind.RELEASED,
        Kind.RETURNED,
    ]
    assert verify(link.line for link in world.journal.links)[1] is None


def test_the_log_tells_at_whose_request_what_left_and_what_was_withheld(tmp_path: Path) -> None:
    world = World(tmp_path)
    both = leaves(result_txt=RESULT, secret_txt=b"mesh")
    world.plays["solve"] = [Play(leave=both)]
    job = world.submit()
    carried(world, job)
    [offered], [released] = world.logged(Kind.OFFERED), world.logged(Kind.RELEASED)
    assert offered.facts["submitter"] == USER
    assert released.facts["files"] == [["result.txt", 10], ["計算標準出力.txt", 0]]
    assert released.facts["withheld"] == [["secret.txt", "not_permitted"]]
    assert released.facts["tree"] == world.job(job).result_tree


def test_the_receipt_is_the_digest_of_the_record_of_the_release(tmp_path: Path) -> None:
    world = World(tmp_path)
    job = world.submit()
    carried(world, job)
    [line] = [x.line for x in world.journal.links if b'"kind":"released"' in x.line]
    assert world.outcome(job).receipt == hashlib.sha256(line).hexdigest()


def test_the_receipt_of_a_refusal_is_the_digest_of_its_record(tmp_path: Path) -> None:
    world = World(tmp_path)
    job = world.submit("unknown")
    carried(world, job)
    assert world.outcome(job).receipt == world.journal.links[-1].digest
    assert world.journal.records[-1].kind is Kind.REFUSED


def test_the_site_can_read_how_much_room_the_names_of_outputs_need(tmp_path: Path) -> None:
    """What keeps them back is told to the submitter; to what to raise it, to the site alone."""
    left = [Play(leave=leaves(aa_csv=b"1", bb_csv=b"1"))]
    for room, state, code in ((11, "failed", "output.names"), (12, "succeeded", None)):
        base = tmp_path / str(room)
        base.mkdir()
        world = World(base, a_manifest(a_command(max_output_name_bytes=room)))
        world.plays["solve"] = left
        job = world.submit(outputs=["*.csv"])
        assert end_of(world, job) == (state, code)
        released = world.logged(Kind.RELEASED)[0].facts
        names = {name for name, _ in released["files"]} & {"aa.csv", "bb.csv"}
        assert (released["name_bytes"], len(names)) == (12, 0 if code else 2)
        assert "12" not in str(world.outcome(job).params.values())


@pytest.mark.parametrize(
    ("play", "outputs", "state", "code"),
    [
        (replace(GOOD, code=3), ["result.txt"], "failed", None),
        (Play(code=0), ["result.txt"], "failed", "output.missing"),
        (Play(leave=leaves(result_txt=b"x" * 1001)), ["result.txt"], "failed", "output.too_large"),
        (
            Play(leave=leaves(a_csv=b"1", b_csv=b"1", c_csv=b"1", d_csv=b"1")),
            ["*.csv"],
            "failed",
            "output.too_many",
        ),
        (Play(), [], "succeeded", None),
    ],
)
def test_how_a_command_ends_is_how_its_job_ends(
    tmp_path: Path, play: Play, outputs: list[str], state: str, code: str | None
) -> None:
    world = World(tmp_path)
    world.plays["solve"] = [play]
    job = world.submit(outputs=outputs)
    assert end_of(world, job) == (state, code)
    assert world.outcome(job).exit_code == play.code


def test_a_failed_command_returns_its_outputs_too(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.plays["solve"] = [replace(GOOD, code=3)]
    job = world.submit()
    assert carried(world, job) == ["failed"]
    assert world.outputs(job)["result.txt"] == RESULT


def test_a_job_without_a_file_to_return_ends_without_a_tree(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.edit(stdout=a_command().stderr)
    world.plays["solve"] = [Play(seconds=1)]
    job = world.submit(outputs=[])
    assert carried(world, job) == ["succeeded"]
    assert (world.job(job).result_tree, world.outputs(job)) == (None, {})
    assert "mailbox.send" not in world.effects.calls


def with_a_long_list(size: int) -> bytes:
    """Return a request with one input, whose list of a mebibyte and more nobody has sent."""
    index = [ChunkRef("0" * 64, MAX_CHUNK_BYTES)] * 2
    ref = TreeRef(digest="0" * 64, files=1, size=size, index=index)
    return seal(Request(command="solve", inputs=ref, outputs=["result.txt"]))


REFUSALS: list[tuple[str, Callable[[World], str]]] = [
    ("command.unknown", lambda w: w.submit("unknown")),
    ("parameter.unknown", lambda w: w.submit(m=1)),
    ("parameter.invalid", lambda w: w.submit(n=11)),
    ("parameter.invalid", lambda w: w.submit(n="a word")),
    ("output.not_permitted", lambda w: w.submit(outputs=["secret.txt"])),
    ("path.invalid", lambda w: w.submit(outputs=["../secret"])),
    ("input.unexpected", lambda w: w.submit(inputs={"a.exe": b"1"})),
    ("input.too_large", lambda w: w.submit(inputs={"a.dat": b"1" * 1001})),
    ("input.too_many_matching", lambda w: w.submit(inputs={f"{n}.dat": b"1" for n in range(101)})),
    ("input.too_much", lambda w: w.offer_bytes(with_a_long_list(1001))),
    ("envelope.invalid", lambda w: w.offer_bytes(b"no envelope")),
    ("envelope.invalid", lambda w: w.offer_bytes(seal(Outcome(verdict="lost")))),
    ("envelope.invalid", lambda w: w.offer_bytes(b'{"type":"request/1","command":"a","x":1}')),
    ("command.unknown", lambda w: w.offer_bytes(b'{"type":"request/1","command":"b"}')),
    (
        "envelope.invalid",
        lambda w: w.offer_bytes(b'{"type":"request/1","command":"a","\\u0063ommand":"b"}'),
    ),
    (
        "envelope.invalid",
        lambda w: w.offer_bytes(
            b'{"type":"request/1","command":"b","parameters":{"n":1,"n":1}}',
        ),
    ),
]


@pytest.mark.parametrize(("code", "submit"), REFUSALS)
def test_what_the_manifest_does_not_allow_is_refused_with_the_reason(
    tmp_path: Path, code: str, submit: Callable[[World], str]
) -> None:
    world = World(tmp_path)
    job = submit(world)
    assert end_of(world, job) == ("refused", code)
    assert (world.scheduler.started, world.work_dirs(job)) == ([], [])


def test_a_list_longer_than_any_of_so_much_is_not_fetched(tmp_path: Path) -> None:
    """Kills: an agent that holds what any of its submitters wants it to hold."""
    world = World(tmp_path)
    assert end_of(world, world.offer_bytes(with_a_long_list(1000))) == ("failed", "tree.invalid")


@pytest.mark.parametrize(
    ("code", "command"),
    [
        ("submitter.not_listed", a_command()),
        ("command.unknown", a_command(submitters=Submitters(frozenset({"bob"})))),
        ("command.disabled", a_command(enabled=False)),
    ],
)
def test_the_site_decides_whom_it_serves_and_with_what(
    tmp_path: Path, code: str, command: object
) -> None:
    manifest = a_manifest(command)  # type: ignore[arg-type]
    if code == "submitter.not_listed":
        manifest = replace(manifest, submitters=Submitters(frozenset({"bob"})))
    world = World(tmp_path, manifest)
    job = world.submit()
    assert end_of(world, job) == ("refused", code)
    assert world.scheduler.started == []


def test_a_missing_input_is_refused_before_anything_is_fetched(tmp_path: Path) -> None:
    rules = tuple(replace(rule, required=True) for rule in a_command().inputs)
    world = World(tmp_path, a_manifest(a_command(inputs=rules)))
    job = world.submit()
    assert end_of(world, job) == ("refused", "input.missing")


def test_a_word_that_changes_while_a_job_waits_refuses_it(tmp_path: Path) -> None:
    world = World(tmp_path)
    jobs = [world.submit(), world.submit()]

    async def story() -> list[str]:
        async with world.serving():
            await world.until(lambda: world.scheduler.started)
            world.edit(enabled=False)
            return [await world.ended(job) for job in jobs]

    assert sorted(simulate(world.clock, story)) == ["refused", "succeeded"]
    assert {world.outcome(job).code for job in jobs} == {None, "command.disabled"}


@pytest.mark.parametrize(
    ("path", "state", "code"),
    [("*.dat", "succeeded", None), ("*.inp", "refused", "input.unexpected")],
)
@pytest.mark.parametrize("away", [False, True])
def test_inputs_that_wait_are_judged_by_the_manifest_of_their_start(
    tmp_path: Path, path: str, state: str, code: str | None, *, away: bool
) -> None:
    """Kills: a job that starts with a file that its site does not allow any more."""
    world = World(tmp_path, a_manifest(a_command(max_running=1)))
    world.plays["solve"] = [replace(GOOD, seconds=100), GOOD]
    first, second = world.submit(inputs={"b.dat": b"1"}), world.submit(inputs={"a.dat": b"1"})

    async def story() -> None:
        async with world.serving():
            await world.until(lambda: world.scheduler.started)
            await world.until(lambda: world.effects.calls.count("workplace.fill") == 2)
            world.edit(inputs=(InputRule(path=Pattern(path), max_bytes=1000, required=False),))
            if away:
                world.cut_line()
                await anyio.sleep(300)
                world.mend_line()
            await world.ended(first)
            await world.ended(second)

    simulate(world.clock, story)
    waited = max(first, second, key=lambda job: world.outcome(job).code is not None)
    assert (world.state(waited), world.outcome(waited).code) == (state, code)
    assert sorted([world.state(first), world.state(second)]) == sorted(["succeeded", state])
    assert len(world.scheduler.started) == 1 + (state == "succeeded")
    assert world.effects.calls.count("workplace.fill") == 2  # not staged again
    assert away or world.effects.calls.count("mailbox.list_inputs") == 3  # of who waits, once more


@pytest.mark.parametrize(
    ("label", "error", "state", "code"),
    [
        ("mailbox.list_inputs", IntegrityError("tree.digest"), "failed", "tree.digest"),
        ("mailbox.list_inputs", UsageError("tree.invalid"), "failed", "tree.invalid"),
        ("mailbox.list_inputs", TooLarge("tree.too_large"), "failed", "tree.too_large"),
        ("mailbox.list_inputs", NotFound("chunk.not_found"), "failed", "chunk.not_found"),
        ("mailbox.fetch", IntegrityError("chunk.missing"), "failed", "chunk.missing"),
        ("mailbox.fetch", Conflict("fetch.blocked"), "failed", "fetch.blocked"),
        ("mailbox.fetch", StorageFull("fetch.disk_full"), "failed", "site.disk_full"),
        ("workplace.prepare", StorageFull("site.disk_full"), "failed", "site.disk_full"),
        ("workplace.prepare", Conflict("site.attempt_started"), "lost", "site.fate_unknown"),
        ("scheduler.submit", SekishoError("launch.failed", path="/x"), "failed", "launch.failed"),
    ],
)
def test_a_fault_that_will_not_pass_ends_the_job_with_its_code(
    tmp_path: Path, label: str, error: SekishoError, state: str, code: str
) -> None:
    world = World(tmp_path)
    world.fail(label, error)
    job = world.submit(inputs={"a.dat": b"1"})
    assert end_of(world, job) == (state, code)
    assert world.outcome(job).params.keys() <= {"command", "output", "limit"}


@pytest.mark.parametrize("label", ["workplace.stage", "workplace.collect"])
def test_what_was_computed_waits_for_room(tmp_path: Path, label: str) -> None:
    """Kills: days of computing, given up because a disk was full for a moment."""
    world = World(tmp_path)
    world.plays["solve"] = [Play(leave=leaves(result_txt=RESULT))]
    world.fail(label, StorageFull("site.disk_full"), times=30)
    job = world.submit()
    assert end_of(world, job) == ("succeeded", None)
    assert world.outputs(job)["result.txt"] == RESULT
    assert len(world.scheduler.started) == 1


@pytest.mark.parametrize("cancelled", [False, True])
def test_what_was_computed_does_not_wait_for_room_for_ever(
    tmp_path: Path, *, cancelled: bool
) -> None:
    """Nor once its submitter does not want it any more."""
    world = World(tmp_path)
    world.fail("workplace.stage", StorageFull("site.disk_full"), times=10**6)
    job = world.submit()

    async def story() -> tuple[str, float]:
        async with world.serving():
            await world.until(lambda: world.state(job) == "running")
            began = world.clock.monotonic()
            await world.until(lambda: world.clock.monotonic() > began + 100)
            assert world.state(job) == "running"
            if cancelled:
                world.cancel(job)
            state = await world.ended(job, within_s=2 * ROOM_SECONDS)
            return state, world.clock.monotonic() - began

    state, waited_s = simulate(world.clock, story)
    assert (state, world.outcome(job).code) == ("failed", "site.disk_full")
    assert waited_s < 600 if cancelled else waited_s > ROOM_SECONDS - 600


def test_inputs_that_found_no_room_are_not_kept(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.fail("mailbox.fetch", StorageFull("fetch.disk_full"))
    assert end_of(world, world.submit(inputs={"a.dat": b"1"})) == ("failed", "site.disk_full")
    assert world.workplace.jobs() == []


def test_a_full_disk_takes_nothing_away_from_what_was_started(tmp_path: Path) -> None:
    """Whoever says that there is no room may not have looked for a latch."""
    world = World(tmp_path)
    world.fail("workplace.prepare", StorageFull("site.disk_full"))
    job = world.submit(inputs={"a.dat": b"1"})
    place = world.workplace.prepare(job, 1)
    Path(place.control_dir, "latch").mkdir()
    assert end_of(world, job) == ("failed", "site.disk_full")
    assert Path(place.control_dir, "latch").is_dir()


@pytest.mark.parametrize(
    ("label", "error"),
    [
        ("mailbox.list_inputs", Unauthenticated()),
        ("mailbox.list_inputs", Refused("auth.scope")),
        ("mailbox.fetch", Conflict("fetch.busy")),
        ("mailbox.accept", Unavailable()),
        ("mailbox.accept", Unauthenticated()),
        ("workplace.prepare", Unavailable("site.work_base")),
        ("workplace.collect", Unavailable("site.work_base")),
        ("workplace.stage", Unavailable("site.work_base")),
        ("workplace.staged", Unavailable("site.work_base")),
        ("scheduler.submit", Unavailable("launch.unavailable")),
        ("scheduler.observe", Unavailable("launch.unavailable")),
        ("scheduler.changed", Unavailable("launch.unavailable")),
        ("mailbox.send", Conflict("job.outputs_missing")),
        ("mailbox.send", StorageFull()),
        ("mailbox.tell", Unauthenticated()),
        ("mailbox.tell", Refused("auth.scope")),
        ("journal.save", StorageFull()),
        ("journal.append", StorageFull()),
    ],
)
def test_a_fault_that_may_pass_is_waited_for(
    tmp_path: Path, label: str, error: SekishoError
) -> None:
    world = World(tmp_path)
    world.fail(label, error, times=3)
    job = world.submit(inputs={"a.dat": b"1"})
    assert end_of(world, job) == ("succeeded", None)
    assert world.effects.calls.count(label) > 1
    assert len(world.scheduler.started) == 1


def test_a_start_of_which_nothing_was_heard_is_looked_for_until_that_is_possible(
    tmp_path: Path,
) -> None:
    world = World(tmp_path)
    left = {"scheduler.submit": 1, "scheduler.find": 3}

    def fault(label: str) -> BaseException | None:
        left[label] = left.get(label, 0) - 1
        return Unavailable("launch.unavailable") if left[label] >= 0 else None

    world.effects.fault = fault
    assert end_of(world, world.submit()) == ("succeeded", None)
    assert world.effects.calls.count("scheduler.find") == 4
    assert len(world.scheduler.started) == 1


def test_chunks_that_the_broker_lost_are_sent_again(tmp_path: Path) -> None:
    world = World(tmp_path)
    job = world.submit()

    def lose(label: str) -> None:
        if label == "mailbox.send" and world.effects.calls.count(label) == 1:
            space = f"{world.job(job).site}/{USER}"
            chunks = world.broker.ports.store.ledger.declared(job)
            world.broker.ports.blobs.delete(space, [chunk.digest for chunk in chunks])

    world.effects.lost_reply = lose
    assert carried(world, job) == ["succeeded"]
    assert world.outputs(job)["result.txt"] == RESULT
    assert world.effects.calls.count("mailbox.send") == 2


@pytest.mark.parametrize("error", [Corrupt("site.staging_changed"), IntegrityError("chunk.digest")])
def test_a_damaged_copy_of_what_leaves_is_made_and_recorded_anew(
    tmp_path: Path, error: SekishoError
) -> None:
    world = World(tmp_path)
    world.fail("workplace.staged", error)
    job = world.submit()
    assert carried(world, job) == ["succeeded"]
    assert len(world.logged(Kind.RELEASED)) == 2
    assert world.outputs(job)["result.txt"] == RESULT


def test_a_copy_that_is_not_the_recorded_one_is_not_sent(tmp_path: Path) -> None:
    world = World(tmp_path)
    job = world.submit()

    def tamper(label: str) -> None:
        if label == "journal.append" and (run := world.run(job)) is not None and run.token:
            world.effects.lost_reply = lambda _: None
            place = world.workplace.place(job, 1)
            Path(place.work_dir, "result.txt").write_bytes(b"other")
            found = world.workplace.collect(place).found
            world.workplace.stage(place, found, None)

    world.effects.lost_reply = tamper
    assert carried(world, job) == ["succeeded"]
    digests = [record.facts["tree"] for record in world.logged(Kind.RELEASED)]
    assert len(set(digests)) == 2
    assert world.job(job).result_tree == digests[-1]


def test_a_copy_that_is_damaged_again_and_again_is_not_made_without_end(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.fail("workplace.staged", Corrupt("site.staging_changed"), times=MAX_DAMAGED - 1)
    job = world.submit()
    assert carried(world, job) == ["succeeded"]
    assert len(world.logged(Kind.RELEASED)) == 2


def test_a_copy_that_no_disk_keeps_fails_the_job_with_the_reason(tmp_path: Path) -> None:
    """Kills: a result that is owed for ever."""
    world = World(tmp_path)
    world.fail("workplace.staged", Corrupt("site.staging_changed"), times=1000)
    job = world.submit()
    assert carried(world, job) == ["failed"]
    assert world.outcome(job).code == "site.copy_damaged"
    assert world.outcome(job).verdict == "unable"
    assert world.outputs(job) == {}
    assert [record.facts["code"] for record in world.logged(Kind.FAILED)] == ["site.copy_damaged"]


def test_a_work_directory_that_is_gone_before_its_results_left_fails_the_job(
    tmp_path: Path,
) -> None:
    world = World(tmp_path)
    job = world.submit()

    def remove(label: str) -> None:
        if label == "journal.save" and (run := world.run(job)) and run.stage is Stage.COLLECTED:
            shutil.rmtree(Path(world.workplace.place(job, 1).work_dir).parent, ignore_errors=True)

    world.effects.lost_reply = remove
    assert carried(world, job) == ["failed"]
    assert world.outcome(job).code == "site.copy_damaged"
