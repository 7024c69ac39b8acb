"""Jobs submitted before: wait for one, fetch, cancel, look; and the sites that there are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from sekisho.cli import output
from sekisho.cli.names import job_ids
from sekisho.cli.progress import reporter
from sekisho.cli.run import INTO, ON_INTERRUPT, TIMEOUT
from sekisho.cli.session import Session
from sekisho.cli.words import Command, JobCommand, json_option, quiet_option
from sekisho.domain.errors import NotFound, UsageError
from sekisho.domain.job import JobState
from sekisho.i18n.catalogue import sentence, text

if TYPE_CHECKING:
    from sekisho.wire.v1 import JobView, SiteView

JOB: Final = click.argument("job_id", metavar="JOB", shell_complete=job_ids)


@click.command(cls=JobCommand)
@JOB
@INTO
@TIMEOUT
@ON_INTERRUPT
@click.option("--no-fetch", is_flag=True)
@quiet_option
@json_option
@click.pass_obj
def wait(session: Session, /, job_id: str, **words: Any) -> int:
    """Wait for a job submitted before, as `run` does, and fetch its files."""
    from sekisho.cli.follow import follow, following  # noqa: PLC0415

    with reporter(session) as show, session.client(show) as client:
        return follow(session, show, client.job(job_id), following(words, client))


@click.command(cls=JobCommand)
@JOB
@INTO
@click.option("--so-far", is_flag=True)
@quiet_option
@json_option
@click.pass_obj
def fetch(session: Session, job_id: str, into: Path, *, so_far: bool) -> int:
    """Fetch the files of an ended job, or what a running one shows so far."""
    from sekisho.cli.follow import finish  # noqa: PLC0415

    if so_far:
        return _fetch_so_far(session, job_id, into)
    with reporter(session) as show, session.client(show) as client:
        return finish(session, client.job(job_id).fetch(into, show.fetching))


def _fetch_so_far(session: Session, job_id: str, into: Path) -> int:
    with session.client() as client:
        snapshot = client.job(job_id).snapshot()
    if snapshot is None:
        raise NotFound("snapshot.not_found", job=job_id)
    files = snapshot.write(into)
    if session.json:
        facts = {name: getattr(snapshot, name) for name in ("job", "number", "at", "progress")}
        output.result_json(session, {**facts, "files": [str(file) for file in files]})
    else:
        for file in files:
            output.result(session, str(file))
    return 0


@click.command(cls=Command)
@JOB
@quiet_option
@json_option
@click.pass_obj
def cancel(session: Session, job_id: str) -> None:
    """Ask that a job be stopped; its outcome is told by `wait`."""
    with session.client() as client:
        view = client.job(job_id).cancel()
    if session.json:
        output.result_json(session, _facts(view))
    else:
        output.result(session, text("state", view.state, session.lang))
        if view.cancel_requested and not JobState(view.state).terminal:
            output.note(session, session.say("cancel_asked", job=view.id))


@click.command(cls=Command)
@click.option("--limit", type=click.IntRange(1, 10_000), default=50, show_default=True)
@json_option
@click.pass_obj
def jobs(session: Session, limit: int) -> None:
    """List your jobs, newest first."""
    from itertools import islice  # noqa: PLC0415

    with session.client() as client:
        found = list(islice(client.jobs(), limit))
    if session.json:
        output.result_json(session, [_facts(view) for view in found])
    else:
        output.columns(session, [_job_row(session, view) for view in found])


@click.command(cls=Command)
@JOB
@json_option
@click.pass_obj
def show(session: Session, job_id: str) -> None:
    """Show one job."""
    with session.client() as client:
        job = client.job(job_id)
        snapshot = job.snapshot() if job.view.snapshots else None
    facts = _facts(job.view)
    if snapshot is not None:
        facts |= {"progress": snapshot.progress, "published_at": snapshot.at}
        facts |= {"published": ", ".join(snapshot.files)}
    if session.json:
        output.result_json(session, facts)
    else:
        output.columns(session, list(_rows(session, facts)))


@click.command(cls=Command)
@json_option
@click.pass_obj
def sites(session: Session) -> None:
    """List the sites that serve you."""
    with session.client() as client:
        found = client.sites()
    if session.json:
        output.result_json(session, found)
    else:
        output.columns(session, [_site_row(session, site) for site in found])


_STATES: Final = frozenset({"state", "attention"})
#: What only repeats another row, or explains one.
_FOR_PROGRAMS: Final = frozenset({"job", "params"})
_FACTS: Final = (
    "id",
    "site",
    "submitter",
    "state",
    "attention",
    "cancel_requested",
    "created_at",
    "changed_at",
    "expires_at",
    "received",
    "lost_by",
    "unguarded",
)


def _facts(view: JobView) -> dict[str, object]:
    """Return a job for programs: the same keys from every command, and how it ended, if it has.

    An outcome that this version cannot read is told as the reason.
    """
    from sekisho.cli.follow import described  # noqa: PLC0415
    from sekisho.client.result import result_of  # noqa: PLC0415

    facts: dict[str, object] = {name: getattr(view, name) for name in _FACTS}
    if not JobState(view.state).terminal:
        return facts
    try:
        ended = described(result_of(view))
    except UsageError as error:
        return facts | {"code": error.code, "params": error.params}
    return facts | {name: value for name, value in ended.items() if name != "files"}


def _job_row(session: Session, view: JobView) -> tuple[str, ...]:
    state = text("state", view.state, session.lang)
    if view.attention is not None:
        state += f" ({text('state', view.attention, session.lang)})"
    return view.id, _site(session, view), state, view.changed_at.isoformat(timespec="seconds")


def _site(session: Session, view: JobView) -> str:
    return f"{view.site} ({session.say('site_unguarded')})" if view.unguarded else view.site


def _site_row(session: Session, site: SiteView) -> tuple[str, ...]:
    if site.disabled:
        state = session.say("site_disabled")
    else:
        state = session.say("site_connected" if site.connected else "site_away")
    if site.unguarded:
        state += f" ({session.say('site_unguarded')})"
    seen = "" if site.last_seen_at is None else site.last_seen_at.isoformat(timespec="seconds")
    return site.id, state, session.say("site_jobs", waiting=site.waiting, active=site.active), seen


def _rows(session: Session, facts: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    """Return a job's facts in words, without those that say nothing."""
    for name, value in facts.items():
        if name in _FOR_PROGRAMS or value is None or value == "":
            continue
        yield text("column", name, session.lang), _words(session, name, facts)


def _words(session: Session, name: str, facts: Mapping[str, Any]) -> str:
    value = facts[name]
    if isinstance(value, bool):
        return session.say("yes" if value else "no")
    if isinstance(value, datetime):
        return value.isoformat(timespec="seconds")
    if name == "code":
        return sentence(value, facts["params"], session.lang).what
    return text("state", value, session.lang) if name in _STATES else str(value)
