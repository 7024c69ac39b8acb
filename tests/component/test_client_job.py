"""The client over a lane in memory: submitting, waiting, fetching, and every way to end."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import sekisho
from sekisho.adapters.lane_memory import Files, MemoryLane
from sekisho.client.client import Client, new_job_id
from sekisho.client.errors import (
    CommandFailed,
    JobCancelled,
    JobError,
    JobGoesOn,
    JobLost,
    JobRefused,
    SiteUnable,
)
from sekisho.client.snapshot import Snapshot, snapshot_of
from sekisho.client.spec import JobSpec
from sekisho.domain.errors import Conflict, IntegrityError, NotFound, Unreachable, UsageError
from sekisho.domain.ids import check_job_id
from sekisho.wire import envelope
from sekisho.wire.envelope import Outcome, Request, SnapshotFile, seal
from sekisho.wire.v1 import JobView, SnapshotView


def echo(request: Request, files: Files) -> tuple[Outcome, Files]:
    """A site whose command gives back what it was asked, and what it was sent."""
    said = f"{request.command} {sorted(request.parameters.items())} {request.outputs}".encode()
    outputs = {f"back/{name}": data for name, data in files.items()} | {"said": said}
    return Outcome(verdict="succeeded", exit_code=0), outputs


def spec(**changes: object) -> JobSpec:
    return JobSpec(**({"site": "tohoku", "command": "solve"} | changes))  # type: ignore[arg-type]


@pytest.fixture
def lane() -> MemoryLane:
    return MemoryLane(echo)


@pytest.fixture
def client(lane: MemoryLane) -> Client:
    return Client(lane)


def test_inputs_go_out_and_outputs_come_back(client: Client, tmp_path: Path) -> None:
    (tmp_path / "model").write_text("mesh")
    order = spec(inputs={"in/m.txt": tmp_path / "model"}, parameters={"n": 3}, outputs=["said"])
    job = client.submit(order)
    result = job.result(tmp_path / "out")
    assert result.ok
    assert {p.relative_to(tmp_path / "out").as_posix() for p in result.files} == {
        "back/in/m.txt",
        "said",
    }
    assert (tmp_path / "out" / "back" / "in" / "m.txt").read_text() == "mesh"
    assert (tmp_path / "out" / "said").read_text() == "solve [('n', 3)] ['said']"
    assert job.view.received


def test_a_place_where_no_file_can_be_costs_nothing(client: Client, tmp_path: Path) -> None:
    """Kills: an error that says to try again, and the other side told that the result is safe."""
    job = client.submit(spec())
    job.wait()
    (tmp_path / "file").touch()
    for place in (tmp_path / "file", tmp_path / "file" / "below", Path("/dev/null")):
        with pytest.raises(Conflict, match=r"fetch\.into"):
            job.fetch(place)
    assert not job.refresh().received
    assert job.fetch(tmp_path / "here").files


def test_a_snapshot_too_is_put_only_where_files_can_be(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    at = datetime(2026, 1, 1, tzinfo=UTC)
    with pytest.raises(Conflict, match=r"fetch\.into"):
        Snapshot(job="j", number=1, at=at, files={"x": b"1"}).write(tmp_path / "file")


def test_a_snapshot_that_names_a_file_twice_is_none() -> None:
    """Kills: one of two files under one name, whichever came last."""
    at = datetime(2026, 1, 1, tzinfo=UTC)
    files = [SnapshotFile("a", b"1"), SnapshotFile("a", b"2")]
    told = seal(envelope.Snapshot(at=at, files=files, receipt="0" * 64))
    with pytest.raises(UsageError, match=r"envelope\.invalid"):
        snapshot_of("j", SnapshotView(number=1, snapshot=told))


def test_an_input_without_a_name_keeps_its_own(client: Client, tmp_path: Path) -> None:
    (tmp_path / "mesh.inp").write_text("m")
    result = client.submit(spec(inputs=[tmp_path / "mesh.inp"])).result(tmp_path / "out")
    assert tmp_path / "out" / "back" / "mesh.inp" in result.files


def test_a_job_is_found_again_by_its_id(client: Client, tmp_path: Path) -> None:
    job_id = new_job_id()
    check_job_id(job_id)
    first = client.submit(spec(), job_id=job_id)
    assert client.submit(spec(), job_id=job_id).view == first.view
    assert client.job(job_id).result(tmp_path).ok
    with pytest.raises(Conflict, match=r"job\.different_request"):
        client.submit(spec(command="other"), job_id=job_id)
    assert [view.id for view in client.jobs()] == [job_id]


def test_an_interrupted_submission_is_completed_by_repeating_it(tmp_path: Path) -> None:
    """The line breaks while inputs are sent; the same call again sends the rest and starts."""
    (tmp_path / "model").write_text("mesh")
    lane = MemoryLane(echo)
    broken = True
    whole = lane.chunks

    def chunks(job_id: str) -> object:
        port = whole(job_id)
        if broken:
            raise Unreachable(why="cut")
        return port

    lane.chunks = chunks  # type: ignore[method-assign, assignment]
    client, job_id = Client(lane), new_job_id()
    with pytest.raises(Unreachable):
        client.submit(spec(inputs=[tmp_path / "model"]), job_id=job_id)
    assert client.job(job_id).view.state == "draft"
    broken = False
    assert client.submit(spec(inputs=[tmp_path / "model"]), job_id=job_id).wait().ok


def test_the_id_is_told_before_the_inputs_are_sent(client: Client, tmp_path: Path) -> None:
    (tmp_path / "model").write_text("mesh")
    told: list[str] = []

    def sending(_done: int, _total: int) -> None:
        assert told

    client.submit(spec(inputs=[tmp_path / "model"]), progress=sending, on_known=told.append)
    assert len(told) == 1


def test_waiting_sees_the_end_while_it_waits() -> None:
    lane = MemoryLane(echo, eager=False)
    job = Client(lane).submit(spec())
    seen: list[str] = []

    def heard(view: JobView) -> None:
        seen.append(view.state)
        if view.state == "queued":
            threading.Thread(target=lane.work, args=(job.id,)).start()

    assert job.wait(30, heard).ok
    assert seen == ["queued", "succeeded"]


def test_a_wait_ends_in_time_and_the_job_goes_on() -> None:
    lane = MemoryLane(echo, eager=False)
    job = Client(lane).submit(spec())
    with pytest.raises(JobGoesOn) as caught:
        job.wait(0.01)
    assert isinstance(caught.value, TimeoutError)
    with pytest.raises(JobGoesOn):
        job.fetch("nowhere")
    lane.work(job.id)
    assert job.wait(30).ok


def test_a_dead_line_does_not_make_a_wait_last_longer_than_asked() -> None:
    lane = MemoryLane(echo, eager=False)
    job = Client(lane).submit(spec())
    limits: list[object] = []

    def dead(_job_id: str, **words: object) -> JobView:
        limits.append(words["patience_s"])
        raise Unreachable(why="cut")

    lane.view = dead  # type: ignore[method-assign, assignment]
    with pytest.raises(JobGoesOn):
        job.wait(5)
    with pytest.raises(Unreachable):
        job.wait()
    assert isinstance(limits[0], float)
    assert 0 < limits[0] <= 5
    assert limits[1] is None


def ends(outcome: Outcome, files: Files | None = None) -> Client:
    return Client(MemoryLane(lambda _request, _files: (outcome, files or {})))


@pytest.mark.parametrize(
    ("outcome", "kind", "status"),
    [
        (Outcome(verdict="failed", exit_code=3), CommandFailed, 3),
        (Outcome(verdict="failed", exit_code=137, signal=9), CommandFailed, 137),
        (Outcome(verdict="failed", signal=9), CommandFailed, 137),
        (Outcome(verdict="failed", exit_code=0, code="output.missing"), CommandFailed, 1),
        (Outcome(verdict="refused", code="command.unknown"), JobRefused, 77),
        (Outcome(verdict="unable", code="site.disk_full"), SiteUnable, 71),
        (Outcome(verdict="cancelled", exit_code=143, signal=15), JobCancelled, 80),
        (Outcome(verdict="lost", code="site.fate_unknown"), JobLost, 70),
    ],
)
def test_every_end_has_its_error_and_its_exit_status(
    tmp_path: Path, outcome: Outcome, kind: type[JobError], status: int
) -> None:
    job = ends(outcome).submit(spec())
    with pytest.raises(kind) as caught:
        job.result(tmp_path)
    result = caught.value.result
    assert (result.exit_status, result.code) == (status, outcome.code)
    assert job.wait() is not None  # how it ended can always be asked without an error


def test_what_a_failed_command_may_show_comes_back_before_the_error(tmp_path: Path) -> None:
    client = ends(Outcome(verdict="failed", exit_code=1), {"計算標準エラー出力.txt": b"diverged"})
    with pytest.raises(CommandFailed) as caught:
        client.submit(spec()).result(tmp_path)
    assert [p.read_bytes() for p in caught.value.result.files] == [b"diverged"]


def test_the_result_is_received_only_when_it_is_safe_here(tmp_path: Path) -> None:
    lane = MemoryLane(echo)
    job = Client(lane).submit(spec())
    (tmp_path / "said").mkdir()
    with pytest.raises(Conflict, match=r"fetch\.blocked"):
        job.result(tmp_path)
    assert not lane.view(job.id).received


def test_a_job_that_waits_is_cancelled_at_once() -> None:
    job = Client(MemoryLane(echo, eager=False)).submit(spec())
    assert job.cancel().state == "cancelled"
    with pytest.raises(JobCancelled):
        job.wait().check()


def test_what_can_never_work_is_refused_here(client: Client, tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        spec(site="Not A Site")
    with pytest.raises(UsageError):
        spec(outputs=["../x"])
    with pytest.raises(UsageError):
        client.submit(spec(inputs=[tmp_path / "absent"]))
    with pytest.raises(UsageError):
        client.submit(spec(), job_id="mine")
    with pytest.raises(NotFound):
        client.job(new_job_id())
    assert list(client.jobs()) == []


def test_an_input_that_changes_while_it_is_sent_starts_nothing(tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.write_text("before")
    lane = MemoryLane(echo)
    client = Client(lane)

    def change(_job_id: str) -> None:
        model.write_text("after!")

    with pytest.raises(IntegrityError, match=r"input\.changed"):
        client.submit(spec(inputs=[model]), on_known=change)
    assert [view.state for view in client.jobs()] == ["draft"]


def test_a_study_of_many_parameters_comes_back_in_order(client: Client, tmp_path: Path) -> None:
    with sekisho.Executor(client, "tohoku", into=tmp_path, max_jobs=4) as pool:
        results = list(pool.map("solve", [{"n": n} for n in range(12)]))
    said = [(r.files[0]).read_text() for r in results]
    assert said == [f"solve [('n', {n})] []" for n in range(12)]
    assert len({r.files[0].parent for r in results}) == 12


def test_a_failed_job_of_a_study_raises_from_its_own_future(tmp_path: Path) -> None:
    client = ends(Outcome(verdict="refused", code="command.unknown"))
    with sekisho.Executor(client, "tohoku", into=tmp_path) as pool:
        future = pool.submit("solve", n=1)
    with pytest.raises(JobRefused):
        future.result()


def test_the_public_names_are_there_and_lazy() -> None:
    for name in sekisho.__all__:
        assert getattr(sekisho, name) is not None
    with pytest.raises(AttributeError):
        sekisho.absent  # noqa: B018
    assert spec(queue_limit=timedelta(hours=2)).queue_limit == timedelta(hours=2)
