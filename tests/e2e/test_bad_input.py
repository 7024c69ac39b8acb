"""What a user, an engineer or an operator types wrongly: one error, its code, what to do next.

In both languages, with the right exit status, and nothing of it stops what is right.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.program import call
from tests.faults.trio import SITE, Trio, a_trio, make_template

MANIFEST = """\
schema = 1
site = "tohoku"
submitters = ["alice"]

[[command]]
name = "strict"
argv = ["/bin/sh", "{home}/strict.sh", "{{cycles}}", "{{load}}", "{{kind}}"]
time_limit_s = 30
[command.parameters]
cycles = {{ type = "integer", minimum = 1, maximum = 10 }}
load = {{ type = "number", minimum = 0.5, maximum = 2.5, default = 1.0 }}
kind = {{ type = "choice", values = ["soft", "hard"], default = "soft" }}
[[command.input]]
path = "model.inp"
max_bytes = "1 KiB"
[[command.output]]
path = "stress.csv"
[[command.output]]
path = "log/**"
"""
FAULTY = """\
schema = 1
site = "tohoku"
submitters = ["alice"]
colour = "blue"

[[command]]
name = "one"
argv = ["relative/program", "{nothing}"]
time_limit_s = 0

[[command]]
name = "two"
argv = []
time_limit_s = 10
[[command.output]]
path = "../up"
"""
FAULTY_LINES = (4, 8, 9, 13, 16)
LANGUAGES = ["en", "ja"]
KANA = re.compile("[\u3040-\u30ff]")


@pytest.fixture(scope="module")
def trio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trio]:
    home = tmp_path_factory.mktemp("input")
    make_template(home / "template")
    with a_trio(home / "template", home / "trio") as made:
        (made.home / "strict.sh").write_text(
            f"echo started >> {made.home}/witness\ncat model.inp > stress.csv\n"
        )
        (made.site / "manifest.toml").write_text(MANIFEST.format(home=made.home))
        (made.home / "model.inp").write_text("a model")
        (made.home / "long.inp").write_text("x" * 2000)
        made.start_broker()
        made.start_agent()
        yield made


def typed(trio: Trio, lang: str, status: int, *words: str) -> str:
    """Type a user's command line, which ends with ``status``; return what it said on stderr."""
    given = [word.replace("@", str(trio.home)) for word in words]
    where = ("--lang", lang, "--config", trio.client_config)
    return call(trio.environ, *where, *given, status=status)[1]


def check_said(err: str, lang: str, code: str, reason: str | None = None) -> None:
    """One error with its code, a next step in the reader's language, and no traceback."""
    lines = err.splitlines()
    (error,) = [n for n, line in enumerate(lines) if line.startswith("error[")]
    assert lines[error].startswith(f"error[{code}]: ")
    assert [line for line in lines[error + 1 :] if line.startswith("  ")]
    reasons = [line for line in lines if line.strip().startswith("reason[")]
    assert [line.strip().startswith(f"reason[{reason}]: ") for line in reasons] == [True] * len(
        [reason] if reason else []
    )
    assert "Traceback" not in err
    assert bool(KANA.search(lines[error])) == (lang == "ja")


GOOD = ("-p", "cycles=3", "-i", "model.inp=@/model.inp", "-o", "stress.csv", "--into", "@/got")
INPUT = ("-i", "model.inp=@/model.inp")


@pytest.mark.parametrize("lang", LANGUAGES)
@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("nosuch", *GOOD), "command.unknown"),
        (("strict", "-p", "cycles=many", *INPUT), "parameter.invalid"),
        (("strict", "-p", "cycles=2.5", *INPUT), "parameter.invalid"),
        (("strict", "-p", "cycles=11", *INPUT), "parameter.invalid"),
        (("strict", "-p", "cycles=3", "-p", "load=nan", *INPUT), "parameter.invalid"),
        (("strict", "-p", "cycles=3", "-p", "kind=medium", *INPUT), "parameter.invalid"),
        (("strict", *INPUT), "parameter.missing"),
        (("strict", "-p", "cycles=3", "-p", "other=1", *INPUT), "parameter.unknown"),
        (("strict", "-p", "cycles=3"), "input.missing"),
        (("strict", "-p", "cycles=3", "-i", "model.inp=@/long.inp"), "input.too_large"),
        (("strict", *GOOD, "-i", "other.inp=@/model.inp"), "input.unexpected"),
        (("strict", *GOOD, "-o", "secret.dat"), "output.not_permitted"),
    ],
    ids=str,
)
def test_what_the_site_does_not_allow_is_refused_and_never_started(
    trio: Trio, words: tuple[str, ...], reason: str, lang: str
) -> None:
    before = trio.starts()
    err = typed(trio, lang, 77, "run", SITE, *words, "--quiet")
    check_said(err, lang, "job.refused", reason)
    assert trio.starts() == before


@pytest.mark.parametrize("lang", LANGUAGES)
def test_an_output_that_was_not_made_fails_the_job_and_the_rest_comes_back(
    trio: Trio, lang: str
) -> None:
    err = typed(trio, lang, 1, "run", SITE, "strict", *GOOD, "-o", "log/run.txt", "--quiet")
    check_said(err, lang, "command.failed", "output.missing")
    assert (trio.home / "got/stress.csv").read_text() == "a model"


@pytest.mark.parametrize("lang", LANGUAGES)
@pytest.mark.parametrize(
    ("status", "words", "code"),
    [
        (64, ("run", SITE, "strict", "-i", "@/absent"), "input.not_found"),
        (64, ("run", SITE, "strict", "-p", "cycles"), "argument.pair"),
        (64, ("run", SITE, "strict", "-o", "../up"), "path.invalid"),
        (66, ("run", "nowhere", "strict", *GOOD), "site.not_found"),
        (66, ("show", "job_" + "0" * 26), "job.not_found"),
        (64, ("show", "yesterday"), "name.invalid"),
        (64, ("frobnicate",), "usage.arguments"),
        (78, ("--config", "@/absent.toml", "sites"), "client.not_set_up"),
    ],
    ids=str,
)
def test_what_can_never_work_is_said_before_anything_is_sent(
    trio: Trio, status: int, words: tuple[str, ...], code: str, lang: str
) -> None:
    check_said(typed(trio, lang, status, *words), lang, code)


@pytest.mark.parametrize("lang", LANGUAGES)
def test_every_fault_of_a_manifest_is_told_at_once_with_its_line(
    trio: Trio, tmp_path: Path, lang: str
) -> None:
    place = tmp_path / "site"
    joined = ("--site", SITE, "--user", "alice", "--broker", "http://127.0.0.1:9")
    call(trio.environ, "site", "init", "--dir", place, *joined)
    (place / "manifest.toml").write_text(FAULTY)
    out, _ = call(trio.environ, "--lang", lang, "site", "check", "--dir", place, status=1)
    assert "[config.invalid]" in out
    assert lines_named(out) >= set(FAULTY_LINES)


@pytest.mark.parametrize("lang", LANGUAGES)
def test_an_agent_does_not_start_with_a_faulty_manifest(trio: Trio, lang: str) -> None:
    """A running one keeps the manifest that was right; see the agent's own tests."""
    place = trio.home / f"faulty-{lang}"
    joined = ("--site", SITE, "--user", "alice", "--broker", "http://127.0.0.1:9")
    call(trio.environ, "site", "init", "--dir", place, *joined)
    (place / "manifest.toml").write_text(FAULTY)
    _, err = call(trio.environ, "--lang", lang, "agent", "--dir", place, status=78)
    check_said(err, lang, "config.invalid")
    assert lines_named(err) >= set(FAULTY_LINES)


def lines_named(text: str) -> set[int]:
    return {int(number) for number in re.findall(r"manifest\.toml:(\d+)", text)}


def test_a_faulty_broker_file_is_told_with_its_lines(trio: Trio, tmp_path: Path) -> None:
    call(trio.environ, "broker", "init", tmp_path / "data")
    config = tmp_path / "data" / "broker.toml"
    config.write_text("[http]\nport = 99999\nhots = 1\n[quota]\nsite_jobs = -1\n")
    _, err = call(trio.environ, "broker", "serve", "-c", config, status=78)
    check_said(err, "en", "config.invalid")
    assert set(re.findall(r"broker\.toml:(\d+)", err)) == {"2", "3", "5"}


def test_after_all_that_a_right_call_works(trio: Trio) -> None:
    before = trio.starts()["started"]
    typed(trio, "en", 0, "run", SITE, "strict", *GOOD)
    assert (trio.home / "got/stress.csv").read_text() == "a model"
    assert trio.starts()["started"] == before + 1
