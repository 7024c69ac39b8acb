"""What is removed on a computing host is a job's, below a base of ours, and nothing else, ever.

The script is run as an ordinary user, in a tree made for the test, with words that its caller
refuses long before: it is the last of three places that look at them.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from sekisho.adapters.hosts.far import FarHost, script
from sekisho.adapters.hosts.far_files import FarFiles
from sekisho.adapters.hosts.ssh import SshAddress, SshHost
from sekisho.adapters.workplace_local import LocalWorkplace
from sekisho.adapters.workplace_ssh import SshWorkplace
from sekisho.domain.errors import UsageError
from tests.sshd import ordinary_user

JOB = "job_" + "0" * 26
IDS = (
    *("", ".", "..", "/", "/etc", "*", "job_*", "job_", ".trash", ".sekisho-base", "-rf", "~"),
    *("$HOME", "other", "job_../../kept", "job_" + "0" * 25, "job_" + "0" * 27, f"{JOB}/.."),
    *(f"{JOB}/../other", f"{JOB}/1", f"{JOB}/1/control", f"./{JOB}", f"../base/{JOB}"),
    *(f"{JOB} other", f"{JOB}\n", f" {JOB}", "job_" + "0" * 24 + "..", "JOB_" + "0" * 26),
    *("job_" + "0" * 25 + end for end in ("/", "*", "$", "\N{FULLWIDTH DIGIT ZERO}", "?")),
    *(";rm -rf .", "`id`", "$(id)"),
)


@dataclass
class Tree:
    """An account's home with a base of ours, one job in it, and things that must stay."""

    top: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="sk-far-")))

    def __post_init__(self) -> None:
        entry = pwd.getpwnam(ordinary_user())
        assert entry.pw_uid != 0, "never as root"
        self.uid = entry.pw_uid
        os.chown(self.top, self.uid, entry.pw_gid)
        self.base, self.home = self.top / "base", self.top / "home"
        self.run("prepare", str(self.base), JOB, "1", "0")
        keep = "mkdir home other; for at in . home other base; do echo kept >$at/kept; done"
        self.user("sh", "-c", f"{keep}; echo result >base/{JOB}/1/work/out")

    def user(self, *argv: str) -> str:
        """Run a program as the account, in the tree."""
        who = {"user": self.uid, "group": self.uid} if os.geteuid() == 0 else {}
        ended = subprocess.run(
            argv,
            cwd=self.top,
            env={"PATH": "/usr/bin:/bin:/usr/sbin:/sbin", "HOME": str(self.home)},
            check=False,
            capture_output=True,
            stdin=subprocess.DEVNULL,
            **who,  # type: ignore[call-overload]
        )
        return str(ended.stdout.decode())

    def run(self, *words: str) -> str:
        return self.user("sh", "-c", script("far.sh"), "sh", *words)

    def entries(self) -> set[str]:
        """Return everything there is; only the folder of the discarded comes and goes."""
        found = (str(entry.relative_to(self.top)) for entry in self.top.rglob("*"))
        return {name for name in found if name != "base/.trash"}


@pytest.fixture
def tree() -> Iterator[Tree]:
    made = Tree()
    yield made
    shutil.rmtree(made.top)


def test_a_job_is_removed_and_all_else_stays(tree: Tree) -> None:
    before = tree.entries()
    assert tree.run("purge", str(tree.base), JOB) == "end\n"
    assert before - tree.entries() >= {f"base/{JOB}", f"base/{JOB}/1/work/out"}
    assert {name for name in before if JOB not in name} == tree.entries()


@pytest.mark.parametrize("job", IDS)
@pytest.mark.parametrize("verb", ["purge", "prepare", "survey", "copy", "put"])
def test_the_script_refuses_what_is_no_job(tree: Tree, verb: str, job: str) -> None:
    before = tree.entries()
    assert tree.run(verb, str(tree.base), job, "1", "0", "0", "700") == "fault job\n"
    assert tree.entries() == before


@pytest.mark.parametrize("attempt", ["", ".", "..", "1/..", "-1", "x", "12345", "1 2", "*"])
@pytest.mark.parametrize("verb", ["prepare", "survey", "copy", "put"])
def test_the_script_refuses_what_is_no_attempt(tree: Tree, verb: str, attempt: str) -> None:
    before = tree.entries()
    assert tree.run(verb, str(tree.base), JOB, attempt, "0", "0", "700") == "fault attempt\n"
    assert tree.entries() == before


@pytest.mark.parametrize("name", ["..", "../x", "a/../../x", "/x", "a//b", "./x", "a/.", ""])
def test_the_script_writes_no_file_beside_the_work_directory(tree: Tree, name: str) -> None:
    before = tree.entries()
    assert tree.run("put", str(tree.base), JOB, "1", name, "0", "600") == "fault name\n"
    assert tree.entries() == before


@pytest.mark.parametrize(
    ("base", "why"),
    [
        ("/", "owner"),
        ("/etc", "owner"),
        ("base", "relative"),
        ("", "relative"),
        ("TOP/home", "home"),
        ("TOP/home/../home/.", "home"),
        ("TOP/other", "unmarked"),
        ("TOP/kept", "ENOTDIR"),
        ("TOP/not/there", "ENOENT"),
    ],
)
@pytest.mark.parametrize("verb", ["purge", "prepare"])
def test_the_script_works_only_below_a_base_that_it_has_marked(
    tree: Tree, verb: str, base: str, why: str
) -> None:
    tree.user("sh", "-c", f"cp -r base/{JOB} other; cp -r base/{JOB} home")
    before = tree.entries()
    said = tree.run(verb, base.replace("TOP", str(tree.top)), JOB, "1", "0")
    assert said == f"fault {why}\n"
    assert tree.entries() == before


def test_a_base_that_others_may_write_to_is_refused(tree: Tree) -> None:
    tree.base.chmod(0o777)
    assert tree.run("purge", str(tree.base), JOB) == "fault owner\n"
    assert (tree.base / JOB).exists()


def test_a_link_in_the_place_of_a_job_is_removed_and_not_followed(tree: Tree) -> None:
    tree.user("sh", "-c", f"rm -r base/{JOB}; ln -s ../other base/{JOB}")
    assert tree.run("purge", str(tree.base), JOB) == "end\n"
    assert not (tree.base / JOB).is_symlink()
    assert (tree.top / "other" / "kept").exists()


def test_links_below_a_job_are_removed_and_not_followed(tree: Tree) -> None:
    work = f"base/{JOB}/1/work"
    tree.user("sh", "-c", f"ln -s ../../../../other {work}/a; ln -s {tree.home} {work}/b")
    assert tree.run("purge", str(tree.base), JOB) == "end\n"
    assert not (tree.base / JOB).exists()
    assert (tree.top / "other" / "kept").exists()
    assert (tree.home / "kept").exists()


def test_a_link_in_the_place_of_the_discarded_is_not_entered(tree: Tree) -> None:
    tree.user("sh", "-c", "rm -r base/.trash; ln -s ../other base/.trash")
    assert "left" in tree.run("purge", str(tree.base), JOB)
    assert (tree.top / "other" / "kept").exists()


def test_directories_that_a_job_has_closed_are_removed_too(tree: Tree) -> None:
    work = f"base/{JOB}/1/work"
    tree.user("sh", "-c", f"mkdir -p {work}/a/b; echo x >{work}/a/b/c; chmod 0 {work}/a/b {work}/a")
    assert tree.run("purge", str(tree.base), JOB) == "end\n"
    assert not (tree.base / JOB).exists()


def test_another_file_system_below_a_job_is_not_entered(tree: Tree) -> None:
    there = f"{tree.base}/{JOB}/1/work/mounted"
    said = tree.user(
        "unshare", "-rm", "sh", "-c",
        'mkdir "$1" && mount -t tmpfs none "$1" && echo kept >"$1/kept" || exit\n'
        'sh -c "$2" sh purge "$3" "$4"; find "$3/.trash" "$1" -name kept 2>/dev/null',
        "sh", there, script("far.sh"), str(tree.base), JOB,
    )  # fmt: skip
    assert said.startswith("left\n")
    assert said.count("/kept") == 1


@pytest.mark.parametrize("job", IDS)
def test_the_adapter_asks_the_host_nothing_about_what_is_no_job(tmp_path: Path, job: str) -> None:
    host = SshHost(SshAddress(host="nowhere.invalid", config_file=tmp_path / "none"), tmp_path)
    files = FarFiles(FarHost(host), "/nowhere")
    workplace = SshWorkplace(files, LocalWorkplace(tmp_path / "here"))
    for asked in (
        lambda: workplace.purge(job),
        lambda: workplace.prepare(job, 1),
        lambda: workplace.place(job, 1),
        lambda: files.purge(job),
        lambda: files.prepare(job, 1, 0),
    ):
        with pytest.raises(UsageError):
            asked()
