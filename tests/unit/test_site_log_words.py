"""How the site's log is shown to people, and what is said of one that cannot be read."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from sekisho.adapters.sitelog_directory import DirectorySiteLog, log_files
from sekisho.cli import main
from sekisho.cli.site_log import Entry, entries, shown, verified
from sekisho.domain.errors import IntegrityError
from sekisho.domain.sitelog import Kind, Record

AT = datetime(2026, 11, 23, 1, 2, 3, tzinfo=UTC)


def an_entry(
    facts: dict[str, object], job: str | None = "job_x", who: tuple[str, str] = ("", "")
) -> Entry:
    body = {"at": "2026-11-23T01:02:03+00:00", "kind": "released", "job": job, "facts": facts}
    return Entry(body, "0" * 64, *who)


def a_state(folder: Path, *records: Record) -> Path:
    (folder / "log").mkdir(parents=True)
    if records:
        DirectorySiteLog(folder / "log").append(records)
    return folder


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"tree": "ab" * 32}, "tree=abababababababab…"),
        ({"tree": "ab" * 31}, f"tree={'ab' * 31}"),
        ({"tree": None}, "tree=-"),
        ({"argv": ["/bin/x", "a b", None]}, 'argv=[/bin/x, "a b", -]'),
        ({"files": [["out", 3]], "epoch": 1}, "files=[[out, 3]] epoch=1"),
    ],
)
def test_a_fact_is_shown_in_a_word(facts: dict[str, object], words: str) -> None:
    line = shown(an_entry(facts, who=("alice", "solve")))
    assert line == f"2026-11-23T01:02:03Z  released   job_x  alice solve  {words}"


def test_what_is_not_known_is_a_dash() -> None:
    assert shown(an_entry({}, None)) == "2026-11-23T01:02:03Z  released   -  - -"


@pytest.mark.parametrize("line", ["no json", "[]", "{}", '{"job": 1, "kind": "x"}'])
def test_a_record_that_cannot_be_read_is_told_with_its_file(tmp_path: Path, line: str) -> None:
    state = a_state(tmp_path, Record(at=AT, kind=Kind.ENDED, job="job_x", facts={}))
    (file,) = log_files(state / "log")
    file.write_text(f"{file.read_text()}{line}\n")
    with pytest.raises(IntegrityError) as why:
        list(entries(state))
    assert (why.value.code, why.value.params) == ("site.log_unreadable", {"file": "2026-11.jsonl"})


def test_a_log_is_verified_for_programs_and_for_people(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = ("--dir", str(tmp_path))
    assert main.run(["site", "init", *place]) == 0
    for records in ((), (Record(at=AT, kind=Kind.ENDED, job="job_x", facts={}),)):
        if records:
            a_state(tmp_path / "state", *records)
        count, head = verified(tmp_path / "state")
        assert (count, bool(head)) == (len(records), bool(records))
        capsys.readouterr()
        assert main.run(["site", "log", "--verify", "--json", *place]) == 0
        told = json.loads(capsys.readouterr().out)
        assert told == {"verified": True, "records": count, "last_digest": head}
        assert main.run(["--lang", "en", "site", "log", "--verify", *place]) == 0
        said = capsys.readouterr().out
        assert str(count) in said
        assert (head or "-") in said
