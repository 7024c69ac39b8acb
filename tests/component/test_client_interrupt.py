"""A signal while a job is being submitted: what is not complete is withdrawn, and it is told."""

from __future__ import annotations

import io
import signal
from pathlib import Path
from typing import Any

import pytest

from sekisho.adapters.lane_memory import Files, MemoryLane
from sekisho.cli import run
from sekisho.cli.interrupt import Interrupted, choose, interruptible
from sekisho.cli.progress import Reporter
from sekisho.cli.session import Session
from sekisho.client.client import Client
from sekisho.domain.errors import NotFound, Unreachable
from sekisho.wire.envelope import Outcome, Request
from sekisho.wire.v1 import JobView, SubmitJob


def nothing(_request: Request, _files: Files) -> tuple[Outcome, Files]:
    return Outcome(verdict="succeeded", exit_code=0), {}


class Signalled(Reporter):
    """The signal comes while the inputs are sent."""

    def sending(self, done: int, total: int) -> None:
        if done == total:
            signal.raise_signal(signal.SIGTERM)


@pytest.fixture
def session() -> Session:
    return Session(lang="en", out=io.StringIO(), err=io.StringIO())


def words(tmp_path: Path) -> dict[str, Any]:
    (tmp_path / "model").write_text("mesh")
    given: dict[str, Any] = dict.fromkeys(("queue_limit", "job_id", "id_file"))
    return given | {
        "site": "tohoku",
        "command": "solve",
        "parameters": (),
        "outputs": (),
        "inputs": (str(tmp_path / "model"),),
    }


def told(session: Session) -> str:
    assert isinstance(session.err, io.StringIO)
    return session.err.getvalue()


def test_a_submission_that_is_not_complete_is_withdrawn(session: Session, tmp_path: Path) -> None:
    client = Client(MemoryLane(nothing))
    with pytest.raises(Interrupted) as caught:
        run._submitted(session, Signalled(session), client, words(tmp_path))  # noqa: SLF001
    assert caught.value.signum == signal.SIGTERM
    assert [view.state for view in client.jobs()] == ["cancelled"]
    assert "nothing was started" in told(session)


def test_a_submission_that_was_complete_after_all_goes_on(session: Session, tmp_path: Path) -> None:
    class Late(MemoryLane):
        """The broker starts the job, and the signal comes before its answer."""

        def start(self, job_id: str) -> JobView:
            super().start(job_id)
            raise Interrupted(signal.SIGTERM)

    client = Client(Late(nothing, eager=False))
    with pytest.raises(Interrupted):
        run._submitted(session, Reporter(session), client, words(tmp_path))  # noqa: SLF001
    (view,) = client.jobs()
    assert view.state == "queued"
    assert f"sekisho wait {view.id}" in told(session)


class Down(MemoryLane):
    """A line that breaks while the job is submitted, and is never up again."""

    def submit(self, job: SubmitJob) -> JobView:
        super().submit(job)
        raise Interrupted(signal.SIGTERM)

    def view(
        self,
        job_id: str,
        *,
        version: int | None = None,
        wait_s: float = 0,
        end: bool = False,
        patience_s: float | None = None,
    ) -> JobView:
        del version, wait_s, end
        assert patience_s is not None, f"{job_id} would be asked for without end"
        assert patience_s < 10
        raise Unreachable


def test_who_stops_does_not_wait_for_a_line_that_is_down(session: Session, tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        run._submitted(session, Reporter(session), Client(Down(nothing)), words(tmp_path))  # noqa: SLF001
    assert "not known whether job_" in told(session)


def test_a_signal_before_the_job_was_submitted_says_so(session: Session, tmp_path: Path) -> None:
    class Early(MemoryLane):
        def submit(self, job: SubmitJob) -> JobView:
            raise Interrupted(signal.SIGINT) from NotFound(job=job.id)

    with pytest.raises(Interrupted):
        run._submitted(session, Reporter(session), Client(Early(nothing)), words(tmp_path))  # noqa: SLF001
    assert "Nothing was submitted" in told(session)


def test_signals_mean_what_they_meant_before_once_the_block_is_left() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Interrupted), interruptible():
        signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.parametrize(
    ("signum", "wish", "choice"),
    [
        (signal.SIGINT, "cancel", "cancel"),
        (signal.SIGTERM, "cancel", "cancel"),
        (signal.SIGINT, "detach", "detach"),
        (signal.SIGTERM, None, "detach"),
        (signal.SIGHUP, None, "detach"),
    ],
)
def test_what_a_signal_does_is_chosen_without_a_terminal(
    session: Session, signum: int, wish: str | None, choice: str
) -> None:
    assert choose(session, Interrupted(signum), wish) == choice


def test_an_id_in_a_file_is_made_once(tmp_path: Path) -> None:
    file = tmp_path / "id"
    made = run._job_id(None, file, lambda: "job_1")  # noqa: SLF001
    again = run._job_id(None, file, lambda: "job_2")  # noqa: SLF001
    given = run._job_id("job_3", file, lambda: "job_4")  # noqa: SLF001
    assert (made, again, given) == ("job_1", "job_1", "job_3")
