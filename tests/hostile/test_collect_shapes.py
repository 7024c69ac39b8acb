"""Whatever a job leaves in its directory: only plain files of its own come out, and soon.

A canary lies outside; every shape tries to bring it out. The naive reader at the end of the first
part shows that the same shapes do leak when the defence is off.
"""

import ctypes
import json
import os
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

import sekisho
from sekisho.adapters.workplace_local import LocalWorkplace
from sekisho.domain.egress import Found
from sekisho.domain.files import RelPath
from sekisho.site.workplace import CollectCaps, Collected, Place

JOB = "job_" + "0" * 26
CANARY = b"CANARY-4f1c"


class Yard:
    """One job's work directory, and a secret beside it that must not come out."""

    def __init__(self, root: Path, caps: CollectCaps | None = None) -> None:
        self.workplace = LocalWorkplace(root / "base", caps=caps or CollectCaps())
        self.place: Place = self.workplace.prepare(JOB, 1)
        self.work = Path(self.place.work_dir)
        self.outside = root / "outside"
        self.outside.mkdir()
        self.secret = self.outside / "secret.txt"
        self.secret.write_bytes(CANARY)
        self.held = os.open(self.secret, os.O_RDONLY)

    def collect(self) -> Collected:
        return self.workplace.collect(self.place)

    def copied(self, *also: str) -> bytes:
        """Everything that staging copies, when all that was found and ``also`` were released."""
        found = self.collect().found
        more = [Found(RelPath.parse(name), len(CANARY)) for name in also]
        staged = self.workplace.stage(self.place, [*found, *more], None)
        return b"".join(staged.read(chunk) for chunk in staged.tree.chunks())

    def reasons(self) -> dict[str, str]:
        return {w.path: w.why for w in self.collect().withheld}


@pytest.fixture
def yard(tmp_path: Path) -> Yard:
    return Yard(tmp_path)


def link(at: str, to: str) -> Callable[[Yard], None]:
    def shape(yard: Yard) -> None:
        path = yard.work / at
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(
            to.format(
                secret=yard.secret,
                outside=yard.outside,
                held=yard.held,
                work=yard.work,
                me=os.getpid(),
            )
        )

    return shape


def all_of(*shapes: Callable[[Yard], None]) -> Callable[[Yard], None]:
    def shape(yard: Yard) -> None:
        for one in shapes:
            one(yard)

    return shape


LINKS: dict[str, tuple[Callable[[Yard], None], str]] = {
    "absolute": (link("x", "{secret}"), "x"),
    "relative out of the tree": (link("x", "../../../../outside/secret.txt"), "x"),
    "relative from below": (link("d/x", "../../../../../outside/secret.txt"), "d/x"),
    "to the directory": (link("x", "{outside}"), "x/secret.txt"),
    "to the directory, slash at the end": (link("x", "{outside}/"), "x/secret.txt"),
    "to the directory above": (link("x", ".."), "x/control/stdout"),
    "to itself as a directory": (link("x", "."), "x/x"),
    "to the root": (link("x", "/"), "x/etc/passwd"),
    "through the root": (link("x", "/../../..{secret}"), "x"),
    "double slashes": (link("x", "//{secret}"), "x"),
    "with dots inside": (link("x", "{outside}/./../outside/secret.txt"), "x"),
    "chained": (all_of(link("x", "y"), link("y", "z"), link("z", "{secret}")), "x"),
    "chained through a directory": (
        all_of(link("x", "d/y"), link("d/y", "../z"), link("z", "{outside}")),
        "x/secret.txt",
    ),
    "chain of forty": (
        all_of(*(link(f"l{n}", f"l{n + 1}") for n in range(39)), link("l39", "{secret}")),
        "l0",
    ),
    "loop of one": (link("x", "x"), "x"),
    "loop of two": (all_of(link("x", "y"), link("y", "x")), "x"),
    "loop of directories": (all_of(link("d/up", ".."), link("e", "d")), "e/up/e/up/e"),
    "dangling": (link("x", "nowhere"), "x"),
    "dangling absolute": (link("x", "/nowhere/at/all"), "x"),
    "empty-looking": (link("x", " "), "x"),
    "of the greatest length": (link("x", "a/" * 2000), "x"),
    "descriptor of ours": (link("x", "/proc/self/fd/{held}"), "x"),
    "descriptor by thread": (link("x", "/proc/thread-self/fd/{held}"), "x"),
    "descriptor by pid": (link("x", "/proc/{me}/fd/{held}"), "x"),
    "descriptor by /dev/fd": (link("x", "/dev/fd/{held}"), "x"),
    "directory of descriptors": (link("x", "/proc/self/fd"), "x/0"),
    "root by /proc": (link("x", "/proc/self/root{secret}"), "x"),
    "root directory by /proc": (link("x", "/proc/self/root"), "x/etc/passwd"),
    "working directory by /proc": (link("x", "/proc/self/cwd"), "x/pyproject.toml"),
    "program by /proc": (link("x", "/proc/self/exe"), "x"),
    "environment by /proc": (link("x", "/proc/self/environ"), "x"),
    "memory by /proc": (link("x", "/proc/self/mem"), "x"),
    "standard input": (link("x", "/dev/stdin"), "x"),
    "to a plain file of the job": (
        all_of(lambda yard: (yard.work / "plain").mkdir(), link("plain/x", "{secret}")),
        "plain/x",
    ),
    "with a harmless suffix": (link("result.csv", "{secret}"), "result.csv"),
    "hidden": (link(".x", "{secret}"), ".x"),
    "name in Japanese": (link("結果.csv", "{secret}"), "結果.csv"),
}


@pytest.mark.parametrize("shape", LINKS)
def test_no_link_is_followed_found_or_copied(yard: Yard, shape: str) -> None:
    make, name = LINKS[shape]
    make(yard)
    (yard.work / "honest").write_bytes(b"honest")
    collected = yard.collect()
    assert [str(f.path) for f in collected.found] == ["honest"]
    assert collected.withheld
    assert {w.why for w in collected.withheld} == {"symlink"}
    assert yard.copied(name) == b"honest"


def test_the_corpus_of_links_is_as_large_as_promised() -> None:
    assert len(LINKS) >= 25


def naive(work: Path) -> bytes:
    """Read as a simple collector would: everything that can be opened below ``work``."""
    content = b""
    for directory, _, names in os.walk(work, followlinks=True):
        for name in sorted(names)[:100]:
            with suppress(OSError):
                content += (Path(directory) / name).read_bytes()[:4096]
        if content.count(CANARY):
            break
    return content


@pytest.mark.parametrize(
    "shape",
    [
        "absolute",
        "to the directory",
        "chained",
        "chained through a directory",
        "chain of forty",
        "descriptor of ours",
        "descriptor by pid",
        "root by /proc",
        "hidden",
    ],
)
def test_the_same_links_leak_from_a_naive_reader(yard: Yard, shape: str) -> None:
    LINKS[shape][0](yard)
    assert CANARY in naive(yard.work)


# ------------------------------------------------------------------- second names, special files


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


# ------------------------------------------------------------------------------- size and number


def test_a_sparse_tebibyte_is_measured_not_read(tmp_path: Path) -> None:
    yard = Yard(tmp_path, CollectCaps(max_file_bytes=1 << 30))
    with (yard.work / "huge").open("wb") as file:
        file.truncate(1 << 40)
    started = time.monotonic()
    assert yard.reasons() == {"huge": "too_large"}
    assert time.monotonic() - started < 2


WRITER = """
import os, sys
fd = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND)
print(flush=True)
block = bytes(65536)
while os.fstat(fd).st_size < 1 << 30:
    os.write(fd, block)
"""


def test_a_file_that_never_stops_growing_is_withheld_in_bounded_time(yard: Yard) -> None:
    file = yard.work / "endless"
    file.write_bytes(bytes(1 << 20))
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(file)], stdout=subprocess.PIPE)
    try:
        assert writer.stdout is not None
        writer.stdout.readline()
        found = yard.collect().found
        seen = file.stat().st_size
        while file.stat().st_size == seen:
            assert writer.poll() is None
        staged = yard.workplace.stage(yard.place, found, None)
    finally:
        writer.kill()
        writer.communicate()
    assert staged.tree.files == ()
    assert [w.why for w in staged.withheld] == ["changed"]
    left = sum(p.stat().st_size for p in Path(yard.place.staging_dir).iterdir())
    assert left < 4096


def fill(directory: Path, count: int) -> None:
    here = os.open(directory, os.O_RDONLY)
    for number in range(count):
        os.close(os.open(f"f{number}", os.O_CREAT | os.O_WRONLY, dir_fd=here))
    os.close(here)


def name_often(directory: Path, count: int) -> None:
    """As `fill`, but the names are those of few files: quicker to make, and as many to look at."""
    here = os.open(directory, os.O_RDONLY)
    first = ""
    for number in range(count):
        if number % 60_000 == 0:  # a file system may bound the names of one file
            first = f"f{number}"
            os.close(os.open(first, os.O_CREAT | os.O_WRONLY, dir_fd=here))
        else:
            os.link(first, f"f{number}", src_dir_fd=here, dst_dir_fd=here)
    os.close(here)


def test_a_million_names_are_given_up_soon_and_in_little_memory(yard: Yard) -> None:
    name_often(yard.work, 1_000_000)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.process_time()
    collected = yard.collect()
    took = time.process_time() - started
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert (collected.found, collected.withheld) == ((), ())
    assert [dict(f.params) for f in collected.faults] == [{"why": "entries", "limit": 100_000}]
    assert took < 2
    assert grown < 50 * 1024  # KiB
    assert yard.workplace.purge(JOB)


def test_names_in_many_directories_are_counted_together(tmp_path: Path) -> None:
    yard = Yard(tmp_path, CollectCaps(max_entries=1000))
    for number in range(40):
        (yard.work / f"d{number}").mkdir()
        fill(yard.work / f"d{number}", 24)
    assert len(yard.collect().found) == 40 * 24  # with the directories: exactly the cap
    (yard.work / "one").touch()
    assert yard.collect().faults[0].code == "collect.over"


def test_the_bytes_of_all_names_are_bounded(tmp_path: Path) -> None:
    yard = Yard(tmp_path, CollectCaps(max_name_bytes=1000))
    for number in range(5):
        (yard.work / (f"{number}" * 200)).touch()
    assert len(yard.collect().found) == 5
    (yard.work / "6").touch()
    collected = yard.collect()
    assert dict(collected.faults[0].params) == {"why": "names", "limit": 1000}
    assert collected.found == ()


def test_a_walk_that_takes_too_long_is_given_up(tmp_path: Path) -> None:
    times = iter(range(1000))
    workplace = LocalWorkplace(
        tmp_path / "base", caps=CollectCaps(max_seconds=5), monotonic=lambda: float(next(times))
    )
    place = workplace.prepare(JOB, 1)
    fill(Path(place.work_dir), 100)
    assert dict(workplace.collect(place).faults[0].params) == {"why": "time", "limit": 5}
    assert next(times) < 20


def test_reasons_beyond_the_cap_are_counted_not_kept(tmp_path: Path) -> None:
    yard = Yard(tmp_path, CollectCaps(max_withheld=3))
    for number in range(10):
        (yard.work / f"l{number}").symlink_to("x")
    collected = yard.collect()
    assert (len(collected.withheld), collected.unlisted) == (3, 7)


def deepen(work: Path, levels: int) -> None:
    """Make a chain of directories far beyond the longest path, with a file at the bottom."""
    here = os.open(work, os.O_RDONLY)
    for _ in range(levels):
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(os.open("bottom", os.O_CREAT | os.O_WRONLY, dir_fd=here))
    os.close(here)


def test_a_tree_ten_thousand_deep_is_left_soon_and_removed_whole(yard: Yard) -> None:
    deepen(yard.work, 10_000)
    (yard.work / "honest").write_bytes(b"1")
    started = time.process_time()
    collected = yard.collect()
    assert time.process_time() - started < 2
    assert [str(f.path) for f in collected.found] == ["honest"]
    assert [w.why for w in collected.withheld] == ["too_deep"]
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, limit[1]))
    try:
        assert yard.workplace.purge(JOB)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limit)
    assert [p.name for p in (yard.work.parents[2]).iterdir()] == [".trash"]
    assert list((yard.work.parents[2] / ".trash").iterdir()) == []


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
