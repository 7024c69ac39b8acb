"""`sekisho site log`: what ran, what left, at whose request, and that nothing is missing."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click

from sekisho.adapters.sitelog_directory import read_log, verify_log
from sekisho.cli import output
from sekisho.cli.session import Session
from sekisho.cli.site_home import home_option, open_site
from sekisho.cli.words import Command, json_option
from sekisho.domain.errors import IntegrityError, NotFound, UsageError
from sekisho.domain.sitelog import Kind

_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_MONTH: Final = re.compile(r"[0-9]{4}-(0[1-9]|1[0-2])")
_SHORT: Final = 16


@dataclass(frozen=True, slots=True)
class Entry:
    """A record of the log with its digest, and who asked for what it is about."""

    body: Mapping[str, Any]
    digest: str
    submitter: str
    command: str


@click.command(cls=Command)
@home_option
@click.option("--month", metavar="YYYY-MM")
@click.option("--job", "job_id", metavar="JOB")
@click.option("--verify", is_flag=True)
@click.option("--receipt", metavar="DIGEST")
@json_option
@click.pass_obj
def log(  # noqa: PLR0913 (one for each option)
    session: Session,
    *,
    home: Path,
    month: str | None,
    job_id: str | None,
    verify: bool,
    receipt: str | None,
) -> None:
    """Say what ran here, what left, and at whose request. With --json one record a line."""
    state = open_site(home).state
    if month is not None and _MONTH.fullmatch(month) is None:
        raise UsageError("site.month", month=month)
    if verify or receipt is not None:
        count, head = verified(state)
        if verify:
            _print_verified(session, count, head)
        if receipt is not None:
            _print_receipt(session, released(state, receipt))
        return
    for entry in _of(entries(state), job_id):
        if month is None or str(entry.body["at"]).startswith(month):
            _print(session, entry)


def entries(state: Path) -> Iterator[Entry]:
    """Return the records of the log below ``state``; one that cannot be read is an error."""
    asked: dict[str, tuple[str, str]] = {}
    for file, line in read_log(state):
        try:
            body = json.loads(line)
            job, kind, facts = body["job"], body["kind"], body["facts"]
        except (ValueError, KeyError, TypeError) as error:
            raise IntegrityError("site.log_unreadable", file=file.name) from error
        if kind == Kind.OFFERED:
            asked[job] = facts.get("submitter", ""), facts.get("command", "")
        yield Entry(body, hashlib.sha256(line).hexdigest(), *asked.get(job, ("", "")))


def _of(every: Iterator[Entry], job_id: str | None) -> Iterator[Entry]:
    """Yield those of one job; raise NotFound when there are none."""
    if job_id is None:
        yield from every
        return
    known = False
    for entry in every:
        if entry.body["job"] == job_id:
            known = True
            yield entry
    if not known:
        raise NotFound("site.no_such_job", job=job_id)


def verified(state: Path) -> tuple[int, str]:
    """Return how many records the log has and the digest of the last; raise at the first break."""
    last, broken = verify_log(state)
    if broken is not None:
        file, where = broken
        raise IntegrityError("site.log_broken", file=file, line=where.line, why=where.why)
    return (0, "") if last is None else (last.seq, last.digest)


def released(state: Path, receipt: str) -> Entry:
    """Return the record that ``receipt``, the digest told with a result, is the digest of."""
    if _DIGEST.fullmatch(receipt) is None:
        raise UsageError("site.receipt_form")
    found = next((entry for entry in entries(state) if entry.digest == receipt), None)
    if found is None:
        raise NotFound("site.receipt_unknown", receipt=receipt)
    return found


def shown(entry: Entry) -> str:
    """Return a record as one line for people."""
    body = entry.body
    at = str(body["at"]).replace("+00:00", "Z")
    facts = " ".join(f"{name}={_value(value)}" for name, value in body["facts"].items())
    who = f"{entry.submitter or '-'} {entry.command or '-'}"
    return f"{at}  {body['kind']:<9}  {body['job'] or '-'}  {who}  {facts}".rstrip()


def _value(value: object) -> str:
    if isinstance(value, list):
        return "[" + ", ".join(_value(item) for item in value) + "]"
    if isinstance(value, str) and _DIGEST.fullmatch(value):
        return f"{value[:_SHORT]}…"
    return "-" if value is None else output.word(str(value))


def _print(session: Session, entry: Entry) -> None:
    if session.json:
        output.result_json(session, {**entry.body, "digest": entry.digest})
    else:
        output.result(session, shown(entry))


def _print_verified(session: Session, count: int, head: str) -> None:
    if session.json:
        output.result_json(session, {"verified": True, "records": count, "last_digest": head})
    else:
        output.result(session, session.say("log_verified", records=count, digest=head or "-"))


def _print_receipt(session: Session, entry: Entry) -> None:
    if session.json:
        output.result_json(session, {**entry.body, "digest": entry.digest, "proved": True})
        return
    output.result(session, session.say("log_receipt", seq=entry.body["seq"]))
    output.result(session, shown(entry))
    for name, size in entry.body["facts"].get("files", []):
        output.result(session, f"  {size:>12}  {name}")
