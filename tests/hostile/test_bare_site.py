"""A hostile site against its client: whatever it answers, nothing lands outside of the result."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from sekisho.adapters.hosts import bare
from sekisho.adapters.hosts.bare import BareHost
from sekisho.adapters.hosts.rsync import Landing, Rsync
from sekisho.adapters.hosts.ssh import Completed, SshAddress, SshHost
from sekisho.adapters.hosts.talk import MAX_HEARD_BYTES
from sekisho.client.spec import JobSpec
from sekisho.domain.errors import SekishoError, TooLarge
from sekisho.domain.limits import MAX_FILES
from tests.bare_site import SITE, BareWorld, bare_world

JOB = "job_01m802zef15w8sqczkqjnnwrg5"
NAMES = [
    b"../up",
    b"../../../../../../tmp/planted",
    b"/tmp/planted",
    b"a/../../b",
    b"./x",
    b"a//b",
    b"",
    b".",
    b"..",
    b"x\n/etc/passwd",
    b"x\x1b[2J",
    b"\xff\xfe",
    b"C:\\x",
    b"con",
    b"x" * 5000,
    "a\u202eb".encode(),
    b"d/" * 60 + b"x",
]


class LyingHost(SshHost):
    """Answers what the test wants, without a line."""

    answer = b""

    def run(self, argv: object, *, stdin: bytes = b"", timeout_s: float = 60) -> Completed:  # noqa: ARG002
        return Completed(0, self.answer, b"")


@pytest.fixture
def liar(tmp_path: Path) -> LyingHost:
    return LyingHost(SshAddress(host="far"), tmp_path)


@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_may_not_cross_is_counted_and_never_asked_for(
    liar: LyingHost, name: bytes
) -> None:
    liar.answer = b"log 0\n5 8 " + name + b"\x005 8 good\0end 0\0"
    left = BareHost(liar, "/tmp").left(JOB)
    assert [str(path) for path, _ in left.files] == ["good"]
    assert left.strange == 1


def test_more_files_than_a_tree_may_have_are_not_taken(liar: LyingHost) -> None:
    liar.answer = b"log 0\n" + b"".join(b"1 8 f%d\0" % n for n in range(MAX_FILES + 10))
    liar.answer += b"end 0\0"
    left = BareHost(liar, "/tmp").left(JOB)
    assert (len(left.files), left.strange) == (MAX_FILES, 10)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"\0",
        b"clock x\n" + JOB.encode() + b" 0 running\nend\n",
        b"clock 1\nend\n",
        b"clock 1\n" + JOB.encode() + b" 0 running\n",
        b"clock 1\n" + JOB.encode() + b" 0 finished\nend\n",
        b"clock 1\n" + JOB.encode() + b" 2 running\nend\n",
        b"clock 99999999999999999999\n" + JOB.encode() + b" 0 running\nend\n",
        b"welcome to this host\n",
        b"\xff" * 1000,
    ],
)
def test_an_answer_of_another_form_is_never_taken_for_a_state(
    liar: LyingHost, answer: bytes
) -> None:
    liar.answer = answer
    with pytest.raises(SekishoError) as strange:
        BareHost(liar, "/tmp").look({JOB: ""}, 0)
    assert strange.value.code == "bare.strange"


@pytest.mark.parametrize(
    "record",
    [
        b"",
        b"exit",
        b"reserved",
        b"exit abc 0 1 2",
        b"exit abc -1 1 2 .",
        b"exit abc 0 1 999999999999999 .",
        b"exit " + b"x" * 100_000,
    ],
)
def test_what_is_no_record_in_a_whole_answer_is_an_unknown_fate(
    liar: LyingHost, record: bytes
) -> None:
    liar.answer = b"clock 1\n" + JOB.encode() + b" 0 exit " + record + b"\nend\n"
    _, seen = BareHost(liar, "/tmp").look({JOB: ""}, 0)
    assert (seen[JOB].word, seen[JOB].exit) == ("gone", None)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"work /etc\nbase 1\nstate making\n{}\nend\n",
        b"work /x/" + JOB.encode() + b"/work\nbase 1\n{}\nend\n",
        b"work /x/" + JOB.encode() + b"/work\nstate making\n{}\nend\n",
        b"work /x/" + JOB.encode() + b"/work\nbase 1$(id)\nstate making\n{}\nend\n",
    ],
)
def test_a_work_directory_of_another_form_is_not_believed(liar: LyingHost, answer: bytes) -> None:
    liar.answer = answer
    with pytest.raises(SekishoError) as strange:
        BareHost(liar, "/tmp").make(JOB, b"{}")
    assert strange.value.code == "bare.strange"


@pytest.fixture
def evil(tmp_path: Path) -> Iterator[BareWorld]:
    """A site whose rsync, when it sends, is somebody else's."""
    tools = tmp_path / "tools"
    tools.mkdir()
    path = f"{tools}:/usr/local/bin:/usr/bin:/bin"
    with bare_world(tmp_path, lines=[f"SetEnv PATH={path}"]) as world:
        world.program("out", "echo fine >good; mkdir d; echo x >d/e")
        yield world


def plant(world: BareWorld, text: str) -> None:
    file = world.place / "tools" / "rsync"
    file.write_text(f"#!/bin/sh\n{text}\n")
    file.chmod(0o755)


SWAP = 'for w in {base}/job_*/work; do rm -rf "$w/good"; %s; done\nexec /usr/bin/rsync "$@"'
SOCKET = "python3 -c 'import socket,sys; socket.socket(1).bind(sys.argv[1])' \"$w/good\""
SENDERS = {
    "swaps a file for a link": SWAP % 'ln -s /etc/passwd "$w/good"',
    "swaps a file for a link to a folder": SWAP % 'ln -s /etc "$w/good"',
    "swaps a file for a pipe": SWAP % 'mkfifo "$w/good"',
    "swaps a file for a folder": SWAP % 'mkdir "$w/good"; ln -s /etc/passwd "$w/good/x"',
    "swaps a folder for a link": SWAP % 'rm -rf "$w/d"; ln -s /etc "$w/d"; mkdir "$w/good"',
    "swaps a file for a device": SWAP % 'mknod "$w/good" c 1 5',
    "swaps a file for a socket": SWAP % SOCKET,
    "swaps a file for a shorter one": SWAP % 'printf f >"$w/good"',
    "swaps a file for an endless one": SWAP % 'truncate -s 100G "$w/good"',
    "sends noise": "head -c 3000000 /dev/urandom",
    "sends without end": "exec yes",
    "ends at once": "exit 0",
}


@pytest.mark.parametrize("how", SENDERS)
def test_a_sender_that_cheats_gets_nothing_outside_of_the_result(
    evil: BareWorld, tmp_path: Path, how: str
) -> None:
    plant(evil, SENDERS[how].format(base=evil.base))
    (tmp_path / "r").mkdir()
    before = {p.name for p in tmp_path.iterdir()}
    with evil.client() as client:
        job = client.submit(JobSpec(site=SITE, command="out"))
        try:
            outcome = job.wait(5).state
            job.fetch(tmp_path / "r")
        except SekishoError as error:
            outcome = error.code
    found = list((tmp_path / "r").rglob("*"))
    assert not [p for p in found if p.is_symlink()]
    assert all(p.is_file() or p.is_dir() for p in found)
    assert not [p for p in found if p.is_file() and b"root:" in p.read_bytes()]
    assert {p.name for p in tmp_path.iterdir()} - before <= {"base", "state"}
    assert outcome in {"failed", "bare.rsync", "job.goes_on", "tree.too_large"}


def test_a_list_of_files_without_end_is_not_held_in_memory(evil: BareWorld) -> None:
    tool = evil.place / "tools" / "find"
    lie = "yes '1 name' | tr '\\n' '\\000'"
    tool.write_text(
        f'#!/bin/sh\ncase $* in *%P*) {lie} ;; *) exec {shutil.which("find")} "$@" ;; esac\n'
    )
    tool.chmod(0o755)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with evil.client() as client:
        job = client.submit(JobSpec(site=SITE, command="out"))
        with pytest.raises(TooLarge):
            job.wait(120)
    grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown_kib < 3 * MAX_HEARD_BYTES >> 10


def test_a_sender_that_says_nothing_is_given_up(evil: BareWorld, tmp_path: Path) -> None:
    plant(evil, "exec sleep 600")
    with evil.client() as client:
        client.submit(JobSpec(site=SITE, command="out"))
        address = SshAddress(host=SITE, config_file=evil.place / "ssh_config")
        host = SshHost(address, evil.runtime)
        landing = Landing(place=tmp_path, passing=tmp_path, max_bytes=1)
        with pytest.raises(SekishoError) as given_up:
            Rsync(host, stall_s=0.5).pull("/tmp", ["x"], landing, lambda _n: None)
        host.disconnect()
    assert given_up.value.code == "ssh.unreachable"


def test_an_honest_sender_brings_what_the_others_did_not(evil: BareWorld, tmp_path: Path) -> None:
    plant(evil, 'exec /usr/bin/rsync "$@"')
    with evil.client() as client:
        client.submit(JobSpec(site=SITE, command="out")).result(tmp_path / "r")
    assert (tmp_path / "r" / "good").read_text() == "fine\n"
    assert (tmp_path / "r" / "d" / "e").read_text() == "x\n"


def asked(verb: str, base: Path, job: str, *more: str) -> str:
    """Return what the script says that runs at a bare site."""
    argv = ["sh", "-c", Path(bare.__file__).with_name("bare.sh").read_text(), "sekisho", verb]
    done = subprocess.run(
        [*argv, base, job, *more], check=False, capture_output=True, text=True, timeout=60
    )
    return done.stdout


@pytest.mark.parametrize("verb", ["record", "start", "cancel", "left", "settle"])
def test_a_directory_that_is_not_ours_is_no_jobs(tmp_path: Path, verb: str) -> None:
    """Kills: a job in a place that somebody else has laid out under its name in /tmp."""
    trap, job = tmp_path / "trap", "job_" + "0" * 26
    (trap / "control").mkdir(parents=True)
    (trap / "record").write_text("{}")
    (tmp_path / job).symlink_to(trap)
    before = sorted(trap.rglob("*"))
    assert asked(verb, tmp_path, job) == "fault foreign\n"
    (tmp_path / job).unlink()
    if os.geteuid() == 0:
        shutil.copytree(trap, tmp_path / job)
        os.chown(tmp_path / job, 65534, 65534)
        assert asked(verb, tmp_path, job) == "fault foreign\n"
    else:
        assert asked(verb, Path("/"), "usr") == "fault foreign\n"
    assert sorted(trap.rglob("*")) == before
