"""A bare site as its users type it: the check, a failure's log, and hosts that come and go."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from sekisho.i18n.catalogue import sentence, text
from tests.bare_site import SITE, BareWorld, bare_world
from tests.forked import run
from tests.gated import SITE as GATED
from tests.two_sites import BARE, HOSTS, two_sites


@pytest.fixture
def world(tmp_path: Path) -> Iterator[BareWorld]:
    with bare_world(tmp_path) as made:
        made.program("noop", "true")
        made.program("fail", "echo the reason; exit 4")
        yield made


def test_the_check_says_what_works(world: BareWorld) -> None:
    with world.sekisho("site", "check", SITE, "--json") as process:
        out, _ = process.communicate(timeout=60)
    told = json.loads(out)
    assert process.returncode == 0
    assert told["ok"]
    checks = [entry["check"] for entry in told["checks"]]
    assert checks[:5] == ["login", "latency", "clock", "rsync", "work"]
    assert set(checks[5:]) == {"programs"}


def test_the_check_names_the_fault(world: BareWorld) -> None:
    (world.server.place / "known_hosts").unlink()
    with world.sekisho("site", "check", SITE) as process:
        out, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "[ssh.host_key]" in out
    settings = world.place / "ssh_config"
    assert f"ssh -F {settings} {SITE} -o StrictHostKeyChecking=ask" in out


def test_a_failed_programs_log_is_shown_between_two_lines(world: BareWorld) -> None:
    with world.sekisho("run", SITE, "fail") as process:
        _, err = process.communicate(timeout=60)
    lines = err.splitlines()
    begin = next(n for n, line in enumerate(lines) if "remote side log" in line)
    assert lines[begin + 1] == "the reason"
    assert lines[begin + 2] == lines[begin]
    assert process.returncode == 4


@pytest.mark.parametrize("lang", ["en", "ja"])
@pytest.mark.parametrize(
    ("site", "checks"),
    [
        (GATED, ["login", "gate", "latency", "clock"]),
        (BARE, ["login", "latency", "clock", "rsync", "work"]),
    ],
)
def test_the_check_tells_each_thing_in_the_readers_language(
    tmp_path: Path, lang: str, site: str, checks: list[str]
) -> None:
    with two_sites(tmp_path) as sites:
        with sites.sekisho("--lang", lang, "site", "check", site) as process:
            out, _ = process.communicate(timeout=60)
        (sites.house.server.place / "known_hosts").write_text("")
        sites.disconnect()
        bad = ["--lang", lang, "site", "check", site]
        told = run(bad, env=sites.environ(), timeout=60)
    lines = [line for line in out.splitlines() if line]
    titles = [text("say", f"check_title_{check}", lang) for check in checks]
    assert process.returncode == 0, out
    assert [next(t for t in titles if t in line) for line in lines[: len(checks)]] == titles
    assert told.returncode == 1
    assert "[ssh.host_key]" in told.stdout
    assert sentence("ssh.host_key", {"host": HOSTS[site]}, lang).what in told.stdout
