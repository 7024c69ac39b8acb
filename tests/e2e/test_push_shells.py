"""Login shells that are not sh, or that print: what works works, what cannot is told at once."""

from __future__ import annotations

import getpass
import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest

from sekisho.i18n.catalogue import sentence
from tests.bare_site import SITE, bare_world
from tests.forked import run
from tests.gated import SITE as GATED
from tests.mounts import within_mounts
from tests.two_sites import BARE, HOSTS, TwoSites, two_sites

SECONDS = 60
GREETING = "Welcome to \x1b[1mnagoya"
NASTY = "it's !x \\\\ \\n $0 * `a`"


def account(place: Path, shell: str, files: Mapping[str, str]) -> list[str]:
    """Return the beginning of a command line for which our own account has another shell and home.

    The home has blanks in its name, and ``files``.
    """
    home = place / "a home of mine"
    home.mkdir()
    for name, text in files.items():
        (home / name).write_text(text)
    rows = [line.split(":") for line in Path("/etc/passwd").read_text().splitlines()]
    (mine,) = [row for row in rows if row[0] == getpass.getuser()]
    mine[5:] = [str(home), shell]
    passwd = place / "passwd"
    passwd.write_text("".join(":".join(row) + "\n" for row in rows))
    return within_mounts('mount --bind "$0" "$1"', str(passwd), "/etc/passwd")


def found(name: str) -> str:
    """Return where the program is."""
    place = shutil.which(name)
    assert place is not None, name
    return place


@pytest.mark.parametrize("shell", ["sh", "bash", "zsh", "fish"])
def test_a_job_runs_whatever_usual_shell_the_login_has(tmp_path: Path, shell: str) -> None:
    """Kills: words that a shell takes apart in another way; a home taken for one word."""
    with bare_world(tmp_path, within=account(tmp_path, found(shell), {})) as world:
        world.program("say", 'printf %s "$1" >word; cat in.txt >>word', "{word}")
        (tmp_path / "in.txt").write_text("end")
        with world.sekisho("site", "check", SITE, "--json") as process:
            told = json.loads(process.communicate(timeout=SECONDS)[0])
        assert told["ok"], told
        words = ("run", SITE, "say", "-p", f"word={NASTY}", "--input", "in.txt", "--into", "r")
        with world.sekisho(*words) as process:
            _, errors = process.communicate(timeout=SECONDS)
        assert process.returncode == 0, errors
        assert (tmp_path / "r" / "word").read_text() == f"{NASTY}end"


SHELLS = {
    "prints": ("bash", {".bashrc": f"echo '{GREETING}'\n"}, "bare.noisy", "Welcome to [1mnagoya"),
    "csh": ("tcsh", {}, "bare.no_shell", "x: Event not found."),
    "csh prints": ("tcsh", {".cshrc": "echo hello\n"}, "bare.noisy", "hello"),
    "none": ("false", {}, "bare.no_shell", ""),
}


@pytest.mark.parametrize("which", SHELLS)
def test_a_login_that_cannot_be_used_is_told_at_once_in_both_languages(
    tmp_path: Path, which: str
) -> None:
    """Kills: minutes of trying again what waiting does not mend; a check that finds it sound."""
    name, files, code, said = SHELLS[which]
    with bare_world(tmp_path, within=account(tmp_path, found(name), files)) as world:
        world.program("say", "true")
        by_hand = f"ssh -F {world.place / 'ssh_config'} {SITE}"
        for lang in ("en", "ja"):
            expected = sentence(code, {"host": SITE, "ssh": by_hand, "said": said}, lang)
            with world.sekisho("--lang", lang, "site", "check", SITE) as process:
                out, _ = process.communicate(timeout=SECONDS)
            assert process.returncode == 1
            assert f"[{code}]" in out
            with world.sekisho("--lang", lang, "run", SITE, "say") as process:
                out, errors = process.communicate(timeout=SECONDS)
            assert process.returncode == 75
            assert (out, errors.count("\n")) == ("", 2), errors
            assert f"error[{code}]: {expected.what}" in errors
            assert expected.next in errors


def test_a_login_that_begins_to_print_while_a_job_runs_is_waited_for(tmp_path: Path) -> None:
    """Kills: a job given up for a line that its site will put right."""
    with bare_world(tmp_path, within=account(tmp_path, found("bash"), {})) as world:
        world.program("hold", "while [ ! -e go ]; do sleep 0.05; done")
        rc = tmp_path / "a home of mine" / ".bashrc"
        with world.sekisho("run", SITE, "hold") as process:
            assert process.stderr
            heard = ""
            while "running" not in heard:
                heard = process.stderr.readline()
            rc.write_text("echo hello\n")
            (work,) = world.base.glob("job_*/work")
            (work / "go").touch()
            while "hello" not in heard:
                heard = process.stderr.readline()
                assert heard
            rc.unlink()
            process.communicate(timeout=SECONDS)
        assert process.returncode == 0


def said(sites: TwoSites, *words: str) -> tuple[int, str]:
    """Return the status and the words of a command line."""
    done = run(words, env=sites.environ(), cwd=sites.place, timeout=SECONDS)
    return done.returncode, done.stdout + done.stderr


def told_at_once(sites: TwoSites, site: str, code: str, params: Mapping[str, str]) -> None:
    """Show that a check and a job say ``code`` at once, in both languages."""
    for lang in ("en", "ja"):
        expected = sentence(code, params, lang)
        status, out = said(sites, "--lang", lang, "site", "check", site)
        assert status == 1, out
        assert f"[{code}]" in out
        status, out = said(sites, "--lang", lang, "run", site, "noop", "--into", "r")
        assert status == 75, out
        assert f"error[{code}]: {expected.what}" in out
        assert expected.next in out


def test_a_greeting_before_a_gate_is_told_at_once_until_it_is_gone(tmp_path: Path) -> None:
    """Kills: a message that cannot be read, and words of a version that differs."""
    files = {".bashrc": f"echo '{GREETING}'; echo more\n"}
    with two_sites(tmp_path, within=account(tmp_path, found("bash"), files)) as sites:
        told_at_once(sites, GATED, "gate.noisy", {"site": GATED, "said": "Welcome to [1mnagoya"})
        (tmp_path / "a home of mine" / ".bashrc").unlink()
        assert said(sites, "run", GATED, "noop", "--into", "r")[0] == 0


@pytest.mark.parametrize("shell", ["tcsh", "fish"])
def test_a_gate_opens_behind_any_shell(tmp_path: Path, shell: str) -> None:
    with two_sites(tmp_path, within=account(tmp_path, found(shell), {})) as sites:
        status, out = said(sites, "run", GATED, "noop", "--into", "r")
        assert status == 0, out


def test_each_kind_of_site_tells_at_once_that_the_key_is_the_others(tmp_path: Path) -> None:
    """Kills: our packets as commands of somebody's shell, which waits for more of them for ever."""
    with two_sites(tmp_path) as sites:
        file, house = tmp_path / "ssh_config", sites.house
        text = file.read_text()
        for old, new in ((house.key, "KEY"), (house.plain, house.key), ("KEY", house.plain)):
            text = text.replace(f"IdentityFile {old}\n", f"IdentityFile {new}\n")
        file.write_text(text)
        told_at_once(sites, GATED, "gate.absent", {"site": GATED})
        bare = {"host": HOSTS[BARE], "ssh": f"ssh -F {file} {HOSTS[BARE]}", "said": ""}
        told_at_once(sites, BARE, "bare.no_shell", bare)
