"""Judgements of the diagnosis: what is a fault, what only worth a word, and who is asked."""

from __future__ import annotations

import ast
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import sekisho
from sekisho.config.manifest import parse_manifest
from sekisho.domain.errors import ConfigError, Refused, Unauthenticated, Unreachable
from sekisho.i18n.catalogue import LANGUAGES, catalogue
from sekisho.site.check import (
    CODES,
    Ask,
    Certificate,
    Finding,
    Grade,
    clean,
    fault,
    found,
    judge_certificate,
    judge_clock,
    judge_identity,
    judge_idle,
    judge_manifest,
    judge_room,
    judge_version,
    ok,
)
from sekisho.wire.v1 import Identity

SHOWN = Certificate(
    issuer="Some CA", names=("other.example",), begins="yesterday", ends="this morning"
)
MANIFEST = """\
schema = 1
site = "one"
submitters = {submitters}
{command}
"""
COMMAND = """\
[[command]]
name = "solve"
argv = ["/bin/true"]
time_limit_s = 1
[[command.output]]
path = "{output}"
"""


def an_identity(**changes: object) -> Identity:
    usual: dict[str, object] = {
        "role": "site",
        "name": "one",
        "at": datetime(2026, 11, 21, tzinfo=UTC),
        "broker_version": "1.2.3",
        "max_body_bytes": 1,
    }
    return Identity(**(usual | changes))  # type: ignore[arg-type]


def codes_of_manifest(*, submitters: str = '["tanaka"]', command: str = "") -> list[str]:
    text = MANIFEST.format(submitters=submitters, command=command)
    return [finding.code for finding in judge_manifest(parse_manifest(text, "manifest.toml"))]


@pytest.mark.parametrize(
    ("ahead_s", "grade"),
    [
        (0.0, Grade.OK),
        (29.9, Grade.OK),
        (-29.9, Grade.OK),
        (31.0, Grade.WARNING),
        (-31.0, Grade.WARNING),
        (299.0, Grade.WARNING),
        (301.0, Grade.FAULT),
        (-timedelta(days=1).total_seconds(), Grade.FAULT),
    ],
)
def test_a_clock_is_judged_by_its_distance_either_way(ahead_s: float, grade: Grade) -> None:
    assert judge_clock(ahead_s).grade is grade


def test_how_far_a_clock_is_ahead_is_told_with_its_sign() -> None:
    assert judge_clock(-86_400.0).params == {"seconds": -86_400}


def test_a_token_of_this_site_is_good() -> None:
    assert judge_identity(an_identity(), "one") == ok("token", "one")


def test_a_token_of_another_site_is_a_fault() -> None:
    assert judge_identity(an_identity(name="two"), "one").code == "check.other_site"


def test_a_token_is_not_compared_with_a_manifest_that_cannot_be_read() -> None:
    assert judge_identity(an_identity(name="two"), None).grade is Grade.OK


def test_a_token_of_another_role_is_a_fault() -> None:
    assert judge_identity(an_identity(role="admin"), "one").code == "check.token_role"


@pytest.mark.parametrize(
    ("elapsed_s", "code"), [(5.0, "check.idle_cut"), (12.0, "check.idle_short")]
)
def test_a_silence_is_bearable_when_shorter_polls_are(elapsed_s: float, code: str) -> None:
    assert judge_idle(elapsed_s).code == code


@pytest.mark.parametrize(
    ("theirs", "grade"), [("1.2.9", Grade.OK), ("1.3.3", Grade.WARNING), ("2.2.3", Grade.WARNING)]
)
def test_versions_may_differ_in_their_last_number(theirs: str, grade: Grade) -> None:
    assert judge_version(theirs, "1.2.3").grade is grade


@pytest.mark.parametrize(
    ("free_bytes", "code"),
    [(1 << 20, "check.disk_full"), (1 << 29, "check.disk_low"), (1 << 31, "")],
)
def test_room_is_judged_by_what_a_job_needs(free_bytes: int, code: str) -> None:
    assert judge_room("work", "/work", free_bytes).code == code


@pytest.mark.parametrize(
    ("verify_code", "inspected", "code"),
    [
        (20, False, "check.tls_issuer"),
        (19, False, "check.tls_issuer"),
        (20, True, "check.tls_inspected"),
        (62, False, "check.tls_host"),
        (64, True, "check.tls_host"),
        (10, False, "check.tls_expired"),
        (9, False, "check.tls_early"),
        (7, False, "check.tls_broken"),
    ],
)
def test_a_certificate_is_refused_for_a_reason(
    verify_code: int, inspected: bool, code: str
) -> None:
    finding = judge_certificate(verify_code, "why", SHOWN, "here.example", inspected=inspected)
    assert finding.code == code


def test_a_manifest_that_serves_nobody_or_nothing_is_worth_a_word() -> None:
    assert codes_of_manifest(submitters="[]") == ["check.no_command", "check.nobody_served"]


@pytest.mark.parametrize("output", ["**", "**/*", "*"])
def test_a_rule_that_lets_everything_leave_is_worth_a_word(output: str) -> None:
    command = COMMAND.format(output=output)
    assert codes_of_manifest(command=command) == ["check.releases_everything"]


def test_a_rule_that_names_files_is_good() -> None:
    assert codes_of_manifest(command=COMMAND.format(output="result/*.csv")) == []


@pytest.mark.parametrize(
    ("error", "ask"),
    [
        (ConfigError("config.invalid", faults=[]), Ask.SITE),
        (Unauthenticated(), Ask.BROKER),
        (Refused("auth.scope", scope="site:work"), Ask.BROKER),
        (Unreachable("broker.gateway", status=502), Ask.NETWORK),
        (ConfigError("broker.url", url="ftp://x"), Ask.SITE),
    ],
)
def test_an_error_is_a_fault_with_somebody_to_ask(error: ConfigError, ask: Ask) -> None:
    finding = fault("token", error)
    assert (finding.grade, finding.code, finding.ask) == (Grade.FAULT, error.code, ask)


def test_only_a_fault_stands_in_the_way() -> None:
    harmless = [ok("dns"), found("idle", "check.quick"), judge_clock(60)]
    assert clean(harmless)
    assert not clean([*harmless, judge_clock(600)])


def test_every_code_of_the_list_is_found_somewhere_and_no_other_is() -> None:
    """The list of codes is the only one: kills a code that is left over, or never listed."""
    trees = [ast.parse(p.read_text("utf-8")) for p in Path(sekisho.__file__).parent.rglob("*.py")]
    texts = [
        text.value
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.Call | ast.Assign)
        for text in ast.walk(node)
        if isinstance(text, ast.Constant) and isinstance(text.value, str)
    ]
    assert {t for t in texts if t.startswith("check.")} == set(CODES)


@pytest.mark.parametrize("lang", LANGUAGES)
def test_every_check_grade_and_person_to_ask_has_a_name(lang: str) -> None:
    said = catalogue(lang)["say"]
    words = {f"check_{grade}" for grade in Grade} | {f"check_ask_{ask}" for ask in Ask}
    assert words <= said.keys()


def test_a_finding_with_a_code_is_never_ok() -> None:
    graded: list[Finding] = [found("x", code) for code in CODES]
    assert all(finding.grade is not Grade.OK for finding in graded)
    assert all((f.ask is None) == (f.grade is Grade.SKIPPED) for f in graded)
