"""`sekisho run` and `sekisho submit`: one command of a site, with files in and files out."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from sekisho.cli import output
from sekisho.cli.interrupt import Interrupted, interruptible
from sekisho.cli.names import paths, site_names
from sekisho.cli.progress import Reporter, reporter
from sekisho.cli.session import Session
from sekisho.cli.words import Command, JobCommand, json_option, quiet_option
from sekisho.domain.errors import NotFound, SekishoError, UsageError
from sekisho.domain.job import JobState
from sekisho.transfer.place import check_into

C = TypeVar("C", bound=Callable[..., Any])
_DURATION: Final = re.compile(r"(\d{1,9}(?:\.\d{1,3})?)([smhd]?)")
_WITHDRAW_SECONDS: Final = 2.0
_LONGEST_SECONDS: Final = timedelta.max.total_seconds() // 2
_SECONDS: Final = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}


class Duration(click.ParamType[timedelta]):
    """A time such as 90s, 30m, 2h or 7d; a bare number counts seconds."""

    name = "duration"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> timedelta:
        found = _DURATION.fullmatch(str(value))
        if found is None:
            self.fail(f"{value!r}: 90s, 30m, 2h, 7d", param, ctx)
        return timedelta(seconds=min(float(found[1]) * _SECONDS[found[2]], _LONGEST_SECONDS))


DURATION: Final = Duration()
INTO: Final = click.option(
    "--into", type=click.Path(path_type=Path, file_okay=False), default=Path(), show_default=True
)
TIMEOUT: Final = click.option("--timeout", type=DURATION)
ON_INTERRUPT: Final = click.option("--on-interrupt", type=click.Choice(["cancel", "detach"]))


def _job_options(function: C) -> C:
    """Add what says which job to submit."""
    for decorate in (
        click.argument("site", shell_complete=site_names),
        click.argument("command"),
        click.option(
            "--input", "-i", "inputs", multiple=True, metavar="[NAME=]PATH", shell_complete=paths
        ),
        click.option("--output", "-o", "outputs", multiple=True, metavar="PATTERN"),
        click.option("--parameter", "-p", "parameters", multiple=True, metavar="NAME=VALUE"),
        click.option("--queue-limit", type=DURATION),
        click.option("--id", "job_id", metavar="JOB"),
        click.option("--id-file", type=click.Path(path_type=Path, dir_okay=False)),
        quiet_option,
        json_option,
    )[::-1]:
        function = decorate(function)
    return function


@click.command(cls=JobCommand)
@_job_options
@INTO
@TIMEOUT
@ON_INTERRUPT
@click.pass_obj
def run(session: Session, /, **words: Any) -> int:
    """Run a command at a site, wait for it, and fetch what the site lets go."""
    from sekisho.cli.follow import follow, following  # noqa: PLC0415

    check_into(words["into"])  # before a job runs in vain
    with reporter(session) as show, session.client(show) as client:
        job = _submitted(session, show, client, words)
        return follow(session, show, job, following(words, client))


@click.command(cls=Command)
@_job_options
@click.pass_obj
def submit(session: Session, /, **words: Any) -> None:
    """Submit a job and its inputs, print its id, and do not wait."""
    with reporter(session) as show, session.client(show) as client:
        job = _submitted(session, show, client, words)
        if session.json:
            output.result_json(session, {"job": job.id, "state": job.view.state})
        else:
            output.result(session, job.id)


def _submitted(session: Session, show: Reporter, client: Any, words: dict[str, Any]) -> Any:
    """Submit; when interrupted before the job is complete, cancel it: nothing has started."""
    from sekisho.client.client import new_job_id  # noqa: PLC0415
    from sekisho.client.spec import JobSpec  # noqa: PLC0415

    spec = JobSpec(
        site=words["site"],
        command=words["command"],
        parameters=dict(_pair(text, "parameter") for text in words["parameters"]),
        inputs=_inputs(words["inputs"]),
        outputs=words["outputs"],
        queue_limit=words["queue_limit"],
    )
    job_id = _job_id(words["job_id"], words["id_file"], new_job_id)
    try:
        with interruptible():
            return client.submit(
                spec,
                job_id=job_id,
                reading=show.reading,
                progress=show.sending,
                on_known=show.known,
            )
    except Interrupted:
        with contextlib.suppress(Interrupted), interruptible():
            _withdraw(session, client, job_id)
        raise


def _withdraw(session: Session, client: Any, job_id: str) -> None:
    """Cancel a job whose inputs are not complete; leave one alone that may run already.

    Whoever wants to stop does not wait for a line that is down.
    """
    try:
        job = client.job(job_id, patience_s=_WITHDRAW_SECONDS)
        incomplete = job.view.state == JobState.DRAFT
        withdrawn = incomplete and job.cancel().state == JobState.CANCELLED
    except NotFound:
        output.note(session, session.say("not_submitted"))
    except SekishoError:
        output.note(session, session.say("perhaps_submitted", job=job_id))
    else:
        output.note(session, session.say("withdrawn" if withdrawn else "detached", job=job_id))


#: More than any id has: a longer text is none, and a device has no end.
_MAX_ID: Final = 100


def _job_id(given: str | None, file: Path | None, make: Callable[[], str]) -> str:
    """Return the id to use: as given, or that kept in ``file`` from an earlier call, or a new one.

    A new id is safe in the file before the job is known to anybody, so that the same call after
    any interruption finds the same job.
    """
    if file is None or given is not None:
        return given or make()
    fd = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    with os.fdopen(fd, "r+", encoding="ascii", errors="replace") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)  # of two calls at once, one makes the id
        if kept := stream.read(_MAX_ID).strip():
            return kept
        job_id = make()
        stream.write(job_id + "\n")
        stream.flush()
        os.fsync(stream.fileno())
    return job_id


def _pair(text: str, kind: str) -> tuple[str, str]:
    name, mark, value = text.partition("=")
    if not mark or not name:
        raise UsageError("argument.pair", kind=kind, text=text)
    return name, value


def _inputs(texts: Sequence[str]) -> dict[str, str]:
    """Return the inputs by the name that they shall have at the site."""
    inputs: dict[str, str] = {}
    for text in texts:
        name, mark, place = text.partition("=")
        if not mark:
            name, place = Path(text).absolute().name, text
        if not place:  # it would be this very directory
            raise UsageError("input.empty", input=text)
        if name in inputs:
            raise UsageError("input.named_twice", input=name)
        inputs[name] = place
    return inputs
