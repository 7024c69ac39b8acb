"""`sekisho broker jobs`, `show`, `lost`: what the operator sees of jobs, and may say of one."""

from __future__ import annotations

from pathlib import Path

import click
from msgspec.structs import asdict

from sekisho.broker.ports import EVERYONE, JobFilter
from sekisho.cli.broker_home import config_option, open_desk
from sekisho.cli.broker_output import show_made, show_record, show_table
from sekisho.cli.session import Session
from sekisho.cli.words import Command, json_option
from sekisho.domain.job import JobState
from sekisho.http.view import job_view
from sekisho.wire.v1 import JobView


@click.command(cls=Command)
@click.option("--site", metavar="NAME")
@click.option("--user", metavar="USER")
@click.option("--state", type=click.Choice([s.value for s in JobState]))
@click.option(
    "--limit", metavar="N", default=100, show_default=True, type=click.IntRange(1, 10_000)
)
@config_option
@json_option
@click.pass_obj
def jobs(  # noqa: PLR0913 (one for each option)
    session: Session,
    *,
    config: Path,
    site: str | None,
    user: str | None,
    state: str | None,
    limit: int,
) -> None:
    """List jobs, newest first. What they compute, the broker does not know."""
    states = None if state is None else frozenset({JobState(state)})
    which = JobFilter(site=site, submitter=user, states=states)
    with open_desk(config) as desk:
        found = desk.ports.store.jobs.page(which, after=None, limit=limit)
    rows = [_facts(job_view(job, desk.policy.value, with_result=False)) for job in found]
    columns = ("id", "site", "submitter", "state", "changed_at", "unguarded")
    show_table(session, rows, columns)


@click.command("show", cls=Command)
@click.argument("job_id", metavar="JOB")
@config_option
@json_option
@click.pass_obj
def show_job(session: Session, job_id: str, config: Path) -> None:
    """Show a job, the chunks that it holds, and the states that it went through."""
    with open_desk(config) as desk:
        job = desk.jobs.get(job_id, EVERYONE)
        chunks = desk.ports.store.ledger.declared(job.id)
        history = desk.ports.store.ledger.history(job.id)
    facts = _facts(job_view(job, desk.policy.value, with_result=False))
    told = {"job": facts} if session.json else facts  # for people each on a line of its own
    row = told | {
        "epoch": job.epoch,
        "instance": job.instance,
        "chunks": len(chunks),
        "chunk_bytes": sum(chunk.size for chunk in chunks),
        "history": [{"at": at, "state": state.value} for at, state in history],
    }
    show_record(session, row)


def _facts(view: JobView) -> dict[str, object]:
    """Return what the broker knows of a job; its result is not for the operator."""
    return {name: value for name, value in asdict(view).items() if name != "result"}


@click.command(cls=Command)
@click.argument("job_id", metavar="JOB")
@click.option("--by", required=True, metavar="NAME")
@config_option
@json_option
@click.pass_obj
def lost(session: Session, job_id: str, config: Path, by: str) -> None:
    """Declare a job lost whose site cannot tell of it any more.

    The job ends as `lost`; it is not run again, and a late result is refused.
    """
    with open_desk(config) as desk:
        state = desk.sites.lost(job_id, by).state.value
    show_made(session, state, {"job": job_id, "state": state, "by": by})
