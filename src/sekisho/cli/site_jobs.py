"""What a site is doing, and what it remembers of each job. For the site's own people.

Jobs that came from the broker and through the gate are in one list.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import click

from sekisho.adapters.journal_directory import DirectoryJournal
from sekisho.adapters.mailbox_noted import LineNote, read_note
from sekisho.adapters.workplace_local import LocalWorkplace
from sekisho.cli import output
from sekisho.cli.session import Session
from sekisho.cli.site_home import home_option, open_site
from sekisho.cli.site_log import entries, shown
from sekisho.cli.site_runs import SiteRun, carrier_state, site_runs
from sekisho.cli.words import Command, json_option
from sekisho.config.site import SiteFiles, disabled_commands
from sekisho.domain.errors import NotFound
from sekisho.domain.ids import check_job_id
from sekisho.domain.run import Run
from sekisho.i18n.catalogue import sentence
from sekisho.site.workplace import Place

#: A line is answered at least this often, by a long poll at its longest and some slack.
_ANSWERED_WITHIN: Final = timedelta(seconds=60)
_LISTED: Final = ("job", "stage", "command", "submitter", "taken_at")


@click.command(cls=Command)
@home_option
@json_option
@click.pass_obj
def status(session: Session, home: Path) -> None:
    """Say whether the agent runs, is paused, is connected, and what it has in hand."""
    files = open_site(home)
    facts = _status(files)
    if session.json:
        output.result_json(session, facts)
        return
    if facts["last_fault"] is not None:
        facts["last_fault"] = f"{facts['last_fault']}: {_meaning(session, facts['last_fault'])}"
    _table(session, "status", facts)


def _meaning(session: Session, code: str) -> str:
    """Return what happened; the note of it has no more than its code."""
    return sentence(code, {}, session.lang).what


def _status(files: SiteFiles) -> dict[str, Any]:
    journal = DirectoryJournal(files.state)
    owner = journal.owner()
    note = read_note(files.line)
    if note is not None and note.pid != owner:
        note = None  # of an agent that is no more
    return {
        "directory": str(files.home),
        "running": owner is not None,
        "pid": owner,
        "paused": files.paused.exists(),
        "connected": _connected(note),
        "last_answer_at": note and note.answered_at,
        "last_poll_at": note and note.asked_at,
        "last_fault": note and note.code,
        "disabled_commands": sorted(disabled_commands(files.disabled)),
        "carrier_pid": DirectoryJournal(carrier_state(files)).owner(),
        "open_jobs": [_listed(one) for one in site_runs(files) if not one.run.settled],
    }


def _connected(note: LineNote | None) -> bool:
    if note is None or note.answered_at is None or note.code is not None:
        return False
    return datetime.now(UTC) - note.answered_at < _ANSWERED_WITHIN


@click.command(cls=Command)
@home_option
@click.option("--all", "every", is_flag=True)
@json_option
@click.pass_obj
def jobs(session: Session, *, home: Path, every: bool) -> None:
    """List the jobs in hand; with --all, those that are remembered as well."""
    found = site_runs(open_site(home))
    rows = [_listed(one) for one in found if every or not one.run.settled]
    if session.json:
        output.result_json(session, rows)
        return
    if rows:
        head = [session.say(f"job_{name}") for name in _LISTED]
        output.columns(session, [head, *(_cells(session, row) for row in rows)])


def _row(run: Run) -> dict[str, Any]:
    return {
        "job": run.job,
        "stage": run.stage.value,
        "command": run.command,
        "submitter": run.submitter,
        "taken_at": run.taken_at,
        "started_at": run.started_at,
        "finished_at": run.finished_at,
        "exit_code": run.exit.code if run.exit else None,
        "held": run.held and not run.stage.final,
        "settled": run.settled,
    }


def _listed(found: SiteRun) -> dict[str, Any]:
    """Return the row of a run, with how far its array has come while it is in hand."""
    row = _row(found.run)
    if found.run.settled or found.run.resources.elements is None:
        return row
    return row | _elements(found.run, Path(_place(found).control_dir))


def _place(found: SiteRun) -> Place:
    return LocalWorkplace(found.work_base).place(found.run.job, found.run.attempt)


def _cells(session: Session, row: Mapping[str, Any]) -> tuple[str, ...]:
    stage = "stage_held" if row["held"] else f"stage_{row['stage']}"
    words = {**row, "stage": session.say(stage)}
    if "elements" in row:
        ended, count = row["elements_ended"], row["elements"]
        words["stage"] += session.say("site_elements", ended=ended, count=count)
    return tuple(_shown(words[name]) for name in _LISTED)


@click.command(cls=Command)
@click.argument("job_id", metavar="JOB")
@home_option
@json_option
@click.pass_obj
def show(session: Session, job_id: str, home: Path) -> None:
    """Show all that this site knows of one job, its work directory too."""
    files = open_site(home)
    found = next((one for one in site_runs(files) if one.run.job == job_id), None)
    records = [entry for entry in entries(files.state) if entry.body["job"] == job_id]
    if found is None and not records:
        raise NotFound("site.no_such_job", job=check_job_id(job_id))
    facts = {} if found is None else _facts(found)
    if session.json:
        told = [{**entry.body, "digest": entry.digest} for entry in records]
        output.result_json(session, {"run": facts or None, "log": told})
        return
    _table(session, "job", facts)
    for entry in records:
        output.result(session, shown(entry))


def _facts(found: SiteRun) -> dict[str, Any]:
    run = found.run
    place = _place(found)
    return {
        **_row(run),
        "epoch": run.epoch,
        "attempt": run.attempt,
        "signal": run.exit.signal if run.exit else None,
        "stop": run.stop.value if run.stop else None,
        "argv": list(run.argv),
        "released_tree": run.tree,
        "keep_until": run.keep_until,
        "work_dir": place.work_dir,
        "control_dir": place.control_dir,
        **_elements(run, Path(place.control_dir)),
    }


def _elements(run: Run, control: Path) -> dict[str, Any]:
    """Return how many elements of an array have ended; nothing when they are on another host."""
    count = run.resources.elements
    if count is None or not control.is_dir():
        return {}
    ended = sum((control / str(number) / "exit").is_file() for number in range(count))
    return {"elements": count, "elements_ended": ended}


def _table(session: Session, kind: str, facts: Mapping[str, Any]) -> None:
    rows = [
        (session.say(f"{kind}_{name}"), _value(session, value))
        for name, value in facts.items()
        if name not in ("open_jobs", "stage")
    ]
    if "stage" in facts:
        rows.insert(1, (session.say("job_stage"), session.say(f"stage_{facts['stage']}")))
    output.columns(session, rows)
    if open_jobs := facts.get("open_jobs"):
        output.result(session, session.say("status_open_jobs"))
        output.columns(session, [("", *_cells(session, row)) for row in open_jobs])


def _value(session: Session, value: object) -> str:
    if isinstance(value, bool):
        return session.say("yes" if value else "no")
    return _shown(value)


def _shown(value: object) -> str:
    if isinstance(value, datetime):
        return value.isoformat(timespec="seconds")
    if isinstance(value, Sequence) and not isinstance(value, str):
        return " ".join(output.word(str(item)) for item in value) or "-"
    return "-" if value is None or value == "" else str(value)
