"""Second names, special files, mounts, names, attributes: only plain files come out, plainly."""

import ctypes
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import sekisho
from tests.hostile.yard import CANARY, JOB, Yard, naive


@pytest.fixture
def yard(tmp_path: Path) -> Yard:
    return Yard(tmp_path)


def test_a_hard_link_to_a_secret_is_withheld(yard: Yard) -> None:
    (yard.work / "x").hardlink_to(yard.secret)
    assert yard.reasons() == {"x": "hard_link"}
    assert CANARY not in yard.copied("x")
    assert CANARY in naive(yard.work)


def test_two_names_of_one_file_are_withheld_both(yard: Yard) -> None:
    (yard.work / "a").write_bytes(b"1")
    (yard.work / "b").hardlink_to(yard.work / "a")
    assert yard.reasons() == {"a": "hard_link", "b": "hard_link"}


def make_socket(path: Path) -> None:
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(path))
    server.close()


@pytest.mark.parametrize("make", [os.mkfifo, make_socket], ids=["FIFO", "socket"])
def test_a_special_file_is_withheld_and_holds_nobody_up(
    yard: Yard, make: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(yard.work)  # the name of a socket is short
    make(Path("x"))
    started = time.monotonic()
    assert yard.reasons() == {"x": "special"}
    assert yard.copied("x") == b""
    assert time.monotonic() - started < 5


MOUNTS = r"""
import json, os, subprocess, sys
from pathlib import Path
from sekisho.adapters.workplace_local import LocalWorkplace
from sekisho.domain.egress import Found
from sekisho.domain.files import RelPath
root = Path(sys.argv[1])
job = "job_" + "0" * 26
workplace = LocalWorkplace(root / "base")
place = workplace.prepare(job, 1)
work = Path(place.work_dir)
def mount(*words): subprocess.run(["mount", *map(str, words)], check=True)
for name in ("tmpfs", "bound", "proc", "sys"): (work / name).mkdir()
for name in ("file", "null", "zero"): (work / name).touch()
mount("-t", "tmpfs", "none", work / "tmpfs")
(work / "tmpfs/kept").write_text("kept")
mount("--bind", root / "outside", work / "bound")
mount("--bind", root / "outside/secret.txt", work / "file")
mount("--bind", "/dev/null", work / "null")
mount("--bind", "/dev/zero", work / "zero")
mount("--rbind", "/proc", work / "proc")
mount("--rbind", "/sys", work / "sys")
(work / "honest").write_text("honest")
collected = workplace.collect(place)
names = ["bound/secret.txt", "file", "zero", "proc/version", "proc/self/environ", "tmpfs/kept"]
released = [Found(RelPath.parse(n), (work / n).stat().st_size) for n in names]
staged = workplace.stage(place, [*collected.found, *released], None)
gone = workplace.purge(job)
kept = [p.read_text() for p in (root / "base").glob(".trash/*/tmpfs/kept")]
for path in (root / "base").glob(".trash/*/*"):
    subprocess.run(["umount", "--lazy", path], check=True)
print(json.dumps({
    "later": workplace.purge(job),
    "left": [p.name for p in (root / "base").glob(".trash/*")],
    "found": [str(f.path) for f in collected.found],
    "withheld": {w.path: w.why for w in collected.withheld},
    "staged": [str(f.path) for f in staged.tree.files],
    "refused": {w.path: w.why for w in staged.withheld},
    "purged": gone,
    "listed": workplace.jobs(),
    "outside": sorted(p.name for p in (root / "outside").iterdir()),
    "mode": oct((root / "outside").stat().st_mode & 0o777),
    "kept": kept,
}))
"""


def test_nothing_that_is_mounted_below_is_read_or_removed(yard: Yard, tmp_path: Path) -> None:
    """In a user and mount namespace of its own, where anybody may mount."""
    yard.outside.chmod(0o750)
    (yard.work / "gone").mkdir()
    yard.workplace.purge(JOB)
    run = subprocess.run(
        ["unshare", "--map-root-user", "--mount", sys.executable, "-c", MOUNTS, str(tmp_path)],
        env={"PYTHONPATH": str(Path(sekisho.__file__).parents[1]), "PATH": os.environ["PATH"]},
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert run.returncode == 0, run.stderr.decode()
    seen = json.loads(run.stdout)
    assert seen["found"] == ["honest"]
    assert seen["withheld"] == {
        "bound": "other_device",
        "file": "other_device",
        "proc": "other_device",
        "sys": "other_device",
        "tmpfs": "other_device",
        "null": "special",
        "zero": "special",
    }
    assert seen["staged"] == ["honest"]
    assert seen["refused"] == {
        "bound/secret.txt": "other_device",
        "file": "other_device",
        "proc/self/environ": "changed",  # by way of a link
        "proc/version": "other_device",
        "tmpfs/kept": "other_device",
        "zero": "special",
    }
    assert (seen["purged"], seen["listed"]) == (False, [])
    assert (seen["outside"], seen["mode"], seen["kept"]) == (["secret.txt"], "0o750", ["kept"])
    assert (seen["later"], seen["left"]) == (True, []), "what hindered it is gone"


# ------------------------------------------------------------------------------------------ names


@pytest.mark.parametrize(
    "name",
    [
        b"\xff\xfe",  # no UTF-8
        b"caf\xe9.txt",  # Latin-1
        b"\x8c\x8b\x89\xca.csv",  # Shift JIS
        b"\xed\xa0\x80",  # a surrogate
        "evil\u202etxt.exe".encode(),  # bidirectional override
        "zero\u200bwidth".encode(),
        "\ufeffbom".encode(),
        "e\u0301.txt".encode(),  # not NFC
        b"line\nbreak",
        b"tab\there",
        b"\x1b[2Jclear",
        b"back\\slash",
        b"C:drive",
        b"NUL",
        b"con.txt",
        b"dot.",
        b"space ",
        b" space",
        "\u2028".encode(),
        "\ue000".encode(),  # private use
    ],
)
def test_a_name_that_may_not_travel_is_withheld_and_shown_harmlessly(
    yard: Yard, name: bytes
) -> None:
    (Path(os.fsdecode(os.fsencode(yard.work) + b"/" + name))).write_bytes(CANARY)
    collected = yard.collect()
    assert collected.found == ()
    (withheld,) = collected.withheld
    assert withheld.why == "name"
    assert withheld.path.isprintable()
    withheld.path.encode("utf-8")


def test_a_directory_whose_name_may_not_travel_is_not_entered(yard: Yard) -> None:
    (yard.work / "bad\u202e").mkdir()
    (yard.work / "bad\u202e" / "good").write_bytes(CANARY)
    assert yard.reasons() == {"bad\\u202e": "name"}


def test_the_withheld_name_in_the_log_is_bounded(yard: Yard) -> None:
    deep = yard.work
    for _ in range(8):
        deep = deep / ("\u202e" * 80)
        deep.mkdir()
    assert all(len(path) < 50_000 for path in yard.reasons())


# ------------------------------------------------------------- what must not tell anything either


def test_times_modes_and_order_of_making_leave_no_trace(tmp_path: Path) -> None:
    digests = set()
    for number, order in enumerate(["abc", "cba", "bca"]):
        (tmp_path / str(number)).mkdir()
        yard = Yard(tmp_path / str(number))
        for name in order:
            file = yard.work / name
            file.write_bytes(name.encode())
            os.utime(file, ns=(number * 10**9, number * 10**18 // 3))
            file.chmod((0o600, 0o644, 0o466)[number])
        staged = yard.workplace.stage(yard.place, yard.collect().found, None)
        digests.add(staged.tree.digest)
        staging = list(Path(yard.place.staging_dir).iterdir())
        assert {p.stat().st_mode & 0o7777 for p in staging} == {0o600}
    assert len(digests) == 1


def test_extended_attributes_stay_behind(yard: Yard) -> None:
    (yard.work / "x").write_bytes(b"1")
    os.setxattr(yard.work / "x", "user.hidden", CANARY)
    staged = yard.workplace.stage(yard.place, yard.collect().found, None)
    assert staged.tree.files
    assert all(os.listxattr(p) == [] for p in Path(yard.place.staging_dir).iterdir())


def test_set_user_id_bits_do_not_get_into_the_copy(yard: Yard) -> None:
    (yard.work / "x").write_bytes(b"1")
    (yard.work / "x").chmod(0o6755)
    staged = yard.workplace.stage(yard.place, yard.collect().found, None)
    assert [f.executable for f in staged.tree.files] == [True]
    assert all(p.stat().st_mode & 0o7777 == 0o600 for p in Path(yard.place.staging_dir).iterdir())


def test_what_can_not_be_read_is_withheld_and_the_rest_comes_out(yard: Yard) -> None:
    """Root reads everything, so this runs with its capabilities taken away."""
    (yard.work / "closed").write_bytes(CANARY)
    (yard.work / "closed").chmod(0)
    (yard.work / "locked").mkdir()
    (yard.work / "locked" / "x").write_bytes(CANARY)
    (yard.work / "locked").chmod(0)
    (yard.work / "honest").write_bytes(b"honest")
    with without_privilege():
        assert yard.reasons() == {"closed": "unreadable", "locked": "unreadable"}
        assert yard.copied("closed", "locked/x") == b"honest"
        assert yard.workplace.purge(JOB)
    assert yard.workplace.jobs() == []


class without_privilege:  # noqa: N801 it reads as a clause
    """Take the capabilities to ignore permissions from this thread for a block."""

    _VERSION_3 = 0x20080522
    _OVERRIDES = 0b110  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._header = (ctypes.c_uint32 * 2)(self._VERSION_3, 0)
        self._before = (ctypes.c_uint32 * 6)()
        if self._libc.capget(self._header, self._before):
            raise OSError(ctypes.get_errno(), "capget")

    def _set(self, words: list[int]) -> None:
        if self._libc.capset(self._header, (ctypes.c_uint32 * 6)(*words)):
            raise OSError(ctypes.get_errno(), "capset")

    def __enter__(self) -> None:
        words = list(self._before)
        words[0] &= ~self._OVERRIDES
        self._set(words)

    def __exit__(self, *_: object) -> None:
        self._set(list(self._before))
