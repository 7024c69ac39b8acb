"""`sekisho site check`: what works, what does not, what that means, and whom to ask."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import click

from sekisho.adapters.schedulers.control import SCRIPT_TEXT
from sekisho.cli import output
from sekisho.cli.names import site_names
from sekisho.cli.session import Session
from sekisho.cli.site_home import home_option
from sekisho.cli.site_manifest import described, facts_of
from sekisho.cli.words import Command, json_option
from sekisho.i18n.catalogue import Sentence, sentence
from sekisho.site.check import Finding, Grade, clean

FAULT_STATUS: Final = 1


@click.command(cls=Command)
@click.argument("name", required=False, metavar="[SITE]", shell_complete=site_names)
@home_option
@click.option("--quick", is_flag=True)
@click.option("--script", is_flag=True)
@json_option
@click.pass_obj
def check(session: Session, *, name: str | None, home: Path, quick: bool, script: bool) -> int:
    """Check manifest, directories and the whole way to the broker. No job is taken.

    Nothing is run but a harmless job through each batch system that the manifest names.

    On the workflow side, with the name of an ssh site of its settings: check the way to that site.
    """
    if script:
        return _show_script(session)
    if name is not None:
        return _check_way(session, name)
    from sekisho.compose.site_check import Diagnosis  # noqa: PLC0415 (HTTP only when needed)

    diagnosis = Diagnosis(home.absolute(), os.environ, quick=quick)
    findings = []
    for finding in diagnosis.run():
        findings.append(finding)
        if not session.json:
            _print(session, finding)
    manifest = diagnosis.manifest
    if session.json:
        listed = [_as_json(session, finding) for finding in findings]
        facts = None if manifest is None else facts_of(manifest)
        output.result_json(session, {"ok": clean(findings), "checks": listed, "manifest": facts})
    else:
        if manifest is not None:
            output.result(session, "")
            for line in described(session, manifest):
                output.result(session, line)
        output.result(session, "")
        output.result(session, _summary(session, findings))
    return 0 if clean(findings) else FAULT_STATUS


def _show_script(session: Session) -> int:
    for line in SCRIPT_TEXT.splitlines():
        output.result(session, line)
    return 0


def _check_way(session: Session, name: str) -> int:
    from sekisho.compose.push_check import findings  # noqa: PLC0415 (only who pushes needs ssh)

    seen = []
    for finding in findings(name, session.config):
        seen.append(finding)
        if not session.json:
            _print(session, finding)
    if session.json:
        listed = [_as_json(session, finding) for finding in seen]
        output.result_json(session, {"ok": clean(seen), "checks": listed})
    else:
        output.result(session, "")
        output.result(session, _summary(session, seen))
    return 0 if clean(seen) else FAULT_STATUS


def _print(session: Session, finding: Finding) -> None:
    grade = session.say(f"check_{finding.grade}")
    title = session.say(f"check_title_{finding.check}")
    head = f"{grade}  {title}"
    if not finding.code:
        output.result(session, f"{head}: {finding.detail}" if finding.detail else head)
        return
    made = _sentence(session, finding)
    if finding.grade is Grade.SKIPPED:
        output.result(session, f"{head}: {made.what}")
        return
    output.result(session, f"{head} [{finding.code}]")
    lines = [*made.what.split("\n"), *made.next.split("\n")]
    if finding.ask is not None:
        lines.append(session.say("check_ask", who=session.say(f"check_ask_{finding.ask}")))
    for line in lines:
        if line:
            output.result(session, f"        {line}")


def _sentence(session: Session, finding: Finding) -> Sentence:
    params = dict(finding.params)
    if "first" in params:  # another check, by the name that is printed for it
        params["first"] = session.say(f"check_title_{params['first']}")
    return sentence(finding.code, params, session.lang)


def _as_json(session: Session, finding: Finding) -> dict[str, object]:
    made = _sentence(session, finding) if finding.code else None
    return {
        "check": finding.check,
        "grade": finding.grade.value,
        "code": finding.code or None,
        "params": finding.params,
        "detail": finding.detail,
        "what": made.what if made else None,
        "next": made.next if made else None,
        "ask": finding.ask.value if finding.ask else None,
    }


def _summary(session: Session, findings: Iterable[Finding]) -> str:
    grades = [finding.grade for finding in findings]
    return session.say(
        "check_summary",
        faults=grades.count(Grade.FAULT),
        warnings=grades.count(Grade.WARNING),
        skipped=grades.count(Grade.SKIPPED),
    )
