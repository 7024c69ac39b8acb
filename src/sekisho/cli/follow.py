"""Staying with a job until its end: wait, fetch, print, and the exit status of it all."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sekisho.cli import exit as statuses
from sekisho.cli import output
from sekisho.cli.interrupt import Interrupted, choose, interruptible
from sekisho.cli.progress import Reporter
from sekisho.client.errors import JobGoesOn
from sekisho.domain.job import JobState

if TYPE_CHECKING:
    from sekisho.cli.session import Session
    from sekisho.client.client import Client
    from sekisho.client.job import Job
    from sekisho.client.result import Result
    from sekisho.wire.v1 import JobView, SiteView


REMOTE_LOG: Final = "remote_program_exec.log"
_LOG_BYTES: Final = 32_768
#: When nobody has taken a job it is worth asking whether its site is there: soon, and once more
#: when an agent that has ended is no longer taken for connected.
_LOOKS_SECONDS: Final = (3.0, 100.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Following:
    """How to stay with a job. ``into`` None: do not fetch. ``asked``: for files, if known."""

    into: Path | None
    timeout_s: float | None = None
    on_interrupt: str | None = None
    asked: bool = True
    sites: Callable[[], Sequence[SiteView]] | None = None  #: asked when nobody takes the job


def following(words: Mapping[str, Any], client: Client) -> Following:
    """Return what the options of `run` or `wait` say."""
    timeout: timedelta | None = words["timeout"]
    return Following(
        into=None if words.get("no_fetch") else words["into"],
        timeout_s=None if timeout is None else timeout.total_seconds(),
        on_interrupt=words["on_interrupt"],
        asked=bool(words.get("outputs", True)),
        sites=client.sites,
    )


def follow(session: Session, show: Reporter, job: Job, how: Following) -> int:
    """Return the exit status of a job, after its files are here; or detach from it."""
    while True:
        try:
            with interruptible():
                return finish(session, _ended(show, job, how))
        except Interrupted as stop:
            show.stop()
            with interruptible():
                choice = choose(session, stop, how.on_interrupt)
            if choice == "detach":
                output.note(session, session.say("detached", job=job.id))
                return statuses.GOES_ON
            if choice == "cancel":
                how = replace(how, on_interrupt="detach")
                job.cancel()
                output.note(session, session.say("cancelling", job=job.id))


def _ended(show: Reporter, job: Job, how: Following) -> Result:
    shown = 0

    def changed(view: JobView) -> None:
        nonlocal shown
        show.changed(view)
        if view.snapshots > shown and not job.ended and (snapshot := job.snapshot()) is not None:
            shown = snapshot.number
            show.published(snapshot)

    result = _waited(show.session, job, how, changed)
    if how.into is None:
        return result
    fetched = job.fetch(how.into, show.fetching)
    if fetched.ok and not fetched.files and not how.asked:
        output.note(show.session, show.session.say("nothing_asked"))
    return fetched


def _waited(
    session: Session, job: Job, how: Following, changed: Callable[[JobView], None]
) -> Result:
    """Wait for the job's end; tell once when nobody is there to send it, or to take it."""
    left = how.timeout_s
    for seconds in _LOOKS_SECONDS:
        if how.sites is None or session.silent or (left is not None and left <= seconds):
            break
        try:
            return job.wait(seconds, changed)
        except JobGoesOn as error:
            left = None if left is None else left - seconds
            if error.__cause__ is not None:  # the broker is away: it cannot tell of sites either
                continue
            if job.view.state not in (JobState.DRAFT, JobState.QUEUED):
                break
            if obstacle := _obstacle(session, job.view, how.sites):
                output.note(session, obstacle)
                break
    return job.wait(left, changed)


def _obstacle(
    session: Session, view: JobView, sites: Callable[[], Sequence[SiteView]]
) -> str | None:
    """Return what stands in the way of a job that no site has, and what to do about it."""
    if view.state == JobState.DRAFT:
        return session.say("waits_for_inputs", job=view.id)
    return _absence(session, view.site, sites())


def _absence(session: Session, name: str, sites: Sequence[SiteView]) -> str | None:
    """Return what stands in the way of a job at the site ``name``, and what to do about it."""
    site = next((site for site in sites if site.id == name), None)
    if site is None or (site.connected and not site.disabled):
        return None
    if site.disabled:
        return session.say("waits_for_disabled", site=name)
    if site.last_seen_at is None:
        return session.say("waits_for_unseen", site=name)
    seen = site.last_seen_at.isoformat(timespec="seconds")
    return session.say("waits_for_absent", site=name, seen=seen)


def finish(session: Session, result: Result) -> int:
    """Print the result of an ended job and return its exit status."""
    if session.json:
        output.result_json(session, described(result))
    else:
        for file in result.files:
            output.result(session, str(file))
        if not result.ok:
            _show_log(session, result)
            output.error(session, result.error())
    return result.exit_status


#: Around a remote log, in every language: scripts of old installations look for it.
_LOG_RULE: Final = "---------- remote side log ----------------"
_DESCRIBED: Final = (
    *("job", "site", "state", "exit_code", "signal", "code", "started_at", "ended_at"),
    *("receipt", "lost_by"),
)


def _show_log(session: Session, result: Result) -> None:
    """Show the end of what a failed program of a bare site printed, between two lines."""
    log = next((file for file in result.files if file.name == REMOTE_LOG), None)
    if log is None:
        return
    with log.open("rb") as stream:
        stream.seek(max(0, log.stat().st_size - _LOG_BYTES))
        text = stream.read().decode("utf-8", "replace")
    for line in (_LOG_RULE, text.rstrip("\n"), _LOG_RULE):
        output.note(session, line)


def described(result: Result) -> dict[str, object]:
    """Return ``result`` for programs."""
    shown: dict[str, object] = {name: getattr(result, name) for name in _DESCRIBED}
    return shown | {
        "params": dict(result.params),
        "files": [str(file) for file in result.files],
        "exit_status": result.exit_status,
    }
