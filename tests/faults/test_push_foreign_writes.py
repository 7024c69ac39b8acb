"""What is not written by us in push mode: by ssh and rsync here, by the shell and rsync over there.

At each step of a job the nth write of such a program fails (EIO), its answer to us included, and
its nth making of a directory, of a name, its nth sync; whoever tries again has better luck. A call
goes on by itself or tells so in one line; in the end there is one start, and the right bytes.
"""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from sekisho.client.client import new_job_id
from tests.faults.nth_write import Prompt, Said
from tests.two_sites import BARE, TwoSites, two_sites

pytestmark = pytest.mark.time_limit(600)
SIZE = 300_000
CALLS = (
    "write,writev,pwrite64,mkdir,mkdirat,rename,renameat,renameat2,link,linkat,symlink,"
    "fsync,fdatasync,ftruncate,bind"
)
WHOSE = ("ssh", "rsync", "far")
MOST_CALLS = 6
_FAIL = """\
#!/bin/sh
first=no
all="$* $SSH_ORIGINAL_COMMAND"
step=other
case $all in
*' -M '*) step=login ;;
*'rsync --server'*--sender*) step=bring ;;
*'rsync --server'*) step=push ;;
*"' 'sekisho' '"*)
    step=${{all##*"' 'sekisho' '"}}
    step=${{step%%"'"*}}
    ;;
esac
nth=$(cat {place}/nth)
[ "$nth" != 0 ] && mkdir {place}/$nth.$step 2>/dev/null && first=yes
fail="strace -D -f -qq -o {place}/trace.$$ -e trace={calls} -e inject={calls}:error=EIO:when=$nth"
"""
#: Here: the program, and not what it starts.
_NEAR = '[ "$first" = yes ] && exec $fail -b execve {program} "$@"\nexec {program} "$@"\n'
#: There: a start is traced without what it leaves running, an rsync by itself.
_FAR = """\
line=$SSH_ORIGINAL_COMMAND
[ "$first" = yes ] || exec sh -c "exec $line"
case $line in
rsync*) exec $fail sh -c "exec $line" ;;
*"' 'sekisho' 'start' "*) exec $fail -b execve sh -c "$line" ;;
*) exec $fail sh -c "$line" ;;
esac
"""


@dataclass
class Yard:
    """A bare site, and a user of it who types one command line after the other."""

    sites: TwoSites
    line: Prompt
    place: Path
    calls: int = 0  #: that ended with an error

    def run(self, job: str) -> Said:
        words = (
            *("run", BARE, "slow", "--id", job, "--into", str(self.place / "got" / job)),
            *("--input", f"in.txt={self.place}/in.txt", "--output", "out.txt"),
        )
        path = {"PATH": f"{self.place}/shadow:{os.environ['PATH']}"}
        return self.line.run(self.sites.environ() | path, *words)

    def published(self, job: str) -> Mapping[str, bytes]:
        folder = self.place / "got" / job
        return {
            file.name: file.read_bytes()
            for file in folder.rglob("*")
            if file.is_file() and not file.relative_to(folder).parts[0].endswith(".part")
        }

    def fail(self, whose: str, nth: int) -> None:
        """Let the nth write of what is ``whose`` fail from now on, and no other's."""
        for name in WHOSE:
            (self.place / name / "nth").write_text(f"{nth if name == whose else 0}\n")

    def failed(self, whose: str) -> int:
        """Return how many writes have failed, and forget them."""
        count = 0
        for trace in (self.place / whose).glob("trace.*"):
            count += trace.read_text("utf-8", "replace").count("(INJECTED)")
            trace.unlink()
        return count


@pytest.fixture
def yard(tmp_path: Path) -> Iterator[Yard]:
    (tmp_path / "shadow").mkdir()
    for name in WHOSE:
        (tmp_path / name).mkdir()
        found = _FAIL.format(place=shlex.quote(str(tmp_path / name)), calls=CALLS)
        rest = _FAR if name == "far" else _NEAR.format(program=f"/usr/bin/{name}")
        file = tmp_path / "shadow" / (name if name != "far" else "post")
        file.write_text(found + rest)
        file.chmod(0o755)
    with two_sites(tmp_path) as sites:
        key = (sites.house.server.place / "key.pub").read_text()
        sites.house.server.authorize(f'command="{tmp_path}/shadow/post" {key}')
        with (tmp_path / "slow.sh").open("a") as slow:
            slow.write("echo printed\n")
        sites.house.site.go.touch()
        yield Yard(sites, Prompt(), tmp_path)


@pytest.mark.parametrize("whose", WHOSE)
def test_a_write_that_fails_in_a_program_of_others_costs_another_call_at_most(
    yard: Yard, whose: str
) -> None:
    """Kills: an answer that is believed without its end, half a file under a result's name."""
    nth, failed = 0, 1
    while failed:
        nth += 1 + nth // 3  # every early one: some programs write much before they come to files
        content, job = os.urandom(SIZE), new_job_id()
        (yard.place / "in.txt").write_bytes(content)
        yard.fail(whose, nth)
        whole = {"out.txt": content, "remote_program_exec.log": b"printed\n"}
        while (said := yard.run(job)).status != 0:
            assert said.err.count("error[") == 1, (nth, said)
            assert "Traceback" not in said.err, (nth, said)
            assert yard.published(job).items() <= whole.items(), (nth, said)
            yard.calls += 1
        assert yard.published(job) == whole, nth
        assert yard.sites.house.site.witness.read_text().count(job) == 1, nth
        failed = yard.failed(whose)
    assert nth > 3
    assert yard.calls <= MOST_CALLS


def pushed_at(yard: Yard, job: str, begun: int, ended: int) -> Path:
    """Let the inputs of ``job`` have been sent from ``begun`` to ``ended``; return its notes."""
    notes = yard.place / "state" / "sekisho" / "jobs" / job
    for name, moment in (("base", begun), ("pushing", begun), ("pushed", ended)):
        os.utime(notes / name, (moment, moment))
    return notes


@pytest.mark.parametrize("killed", [False, True])
def test_an_input_that_changed_twice_in_a_second_of_a_long_push_is_not_the_one_before(
    yard: Yard, killed: bool
) -> None:
    """Kills: a push taken for over ten seconds after its job was made; one whose end is unknown."""
    yard.fail("far", 0)
    second = int(time.time()) - 100
    for content in (b"a" * SIZE, b"b" * SIZE):
        (yard.place / "in.txt").write_bytes(content)
        os.utime(yard.place / "in.txt", (second, second))
        job = new_job_id()
        assert yard.run(job).status == 0
        right = yard.published(job)["out.txt"] == content  # to show a difference takes minutes
        assert right
        notes = pushed_at(yard, job, second - 60, second + 30)
        if killed:
            (notes / "pushed").unlink()


def test_an_input_of_the_same_size_and_second_is_not_the_one_before(yard: Yard) -> None:
    """Kills: believing rsync's comparison of whole seconds, by which the first would run again."""
    yard.fail("far", 0)
    second = int(time.time())
    for content in (b"a" * SIZE, b"b" * SIZE):
        (yard.place / "in.txt").write_bytes(content)
        os.utime(yard.place / "in.txt", (second, second))
        job = new_job_id()
        assert yard.run(job).status == 0
        right = yard.published(job)["out.txt"] == content  # to show a difference takes minutes
        assert right
        pushed_at(yard, job, second, second)
