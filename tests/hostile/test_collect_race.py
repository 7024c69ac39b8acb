"""A process that swaps names while they are collected gets nothing out that is not its own.

Each race has a flipper, a separate process that turns one name back and forth between the job's
own content and a secret. The naive reader, which looks at a path and then opens it, must lose the
same race at least once, or the test has shown nothing.
"""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from stat import S_ISREG

import pytest

from sekisho.adapters.walk import Folders, Unsafe, opened_file, origin_of
from sekisho.adapters.workplace_local import LocalWorkplace
from sekisho.domain.egress import Found
from sekisho.domain.files import RelPath

JOB = "job_" + "0" * 26
CANARY = b"the-CANARY-"
HONEST = b"honest-0000"
TRIES = 22_000  # of each of five races: more than 10^5 in all
MOST_TRIES = 1_000_000  # a flipper and its reader may share one processor
ROUNDS = 400

#: Each gets the work directory, a directory outside with the secret, and swaps until it is killed.
FLIPPERS = {
    # the last name: a plain file, or a link to the secret
    "leaf": """
os.symlink(secret, work / "link")
(work / "plain").write_bytes(HONEST)
os.mkdir(work / "d")
while True:
    os.replace(work / "plain", work / "d/x"); os.rename(work / "d/x", work / "plain")
    os.replace(work / "link", work / "d/x"); os.rename(work / "d/x", work / "link")
""",
    # the name above: a directory with a plain file, or a link to the directory of the secret
    "parent": """
os.symlink(outside, work / "link")
os.mkdir(work / "plain")
(work / "plain/x").write_bytes(HONEST)
while True:
    os.rename(work / "plain", work / "d"); os.rename(work / "d", work / "plain")
    os.rename(work / "link", work / "d"); os.rename(work / "d", work / "link")
""",
    # the secret's directory itself is far away; a chain of links leads there through a second name
    "chain": """
os.symlink(outside, work / "hop")
os.symlink("hop", work / "link")
os.mkdir(work / "plain")
(work / "plain/x").write_bytes(HONEST)
while True:
    os.rename(work / "plain", work / "d"); os.rename(work / "d", work / "plain")
    os.rename(work / "link", work / "d"); os.rename(work / "d", work / "link")
""",
    # the file is replaced by a rename over it, now and then by a link
    "rename-over": """
os.mkdir(work / "d")
n = 0
while True:
    n += 1
    (work / "new").write_bytes(HONEST); os.replace(work / "new", work / "d/x")
    os.symlink(secret, work / "new"); os.replace(work / "new", work / "d/x")
""",
    # the file is, now and then, a second name of the secret
    "hard link": """
os.mkdir(work / "d")
while True:
    (work / "new").write_bytes(HONEST); os.replace(work / "new", work / "d/x")
    os.link(secret, work / "new"); os.replace(work / "new", work / "d/x")
""",
}

PREFACE = f"""
import os, sys
from pathlib import Path
work, outside = Path(sys.argv[1]), Path(sys.argv[2])
secret = outside / "x"
HONEST = {HONEST!r}
"""


#: A second name shows in the time of change only, which older kernels keep in ticks of 10 ms.
SETTLE_S = {"hard link": 0.01}


class Field:
    """A work directory, a secret outside, and a flipper at work."""

    def __init__(self, root: Path, settle_s: float) -> None:
        self.workplace = LocalWorkplace(root / "base", settle_s=settle_s)
        self.place = self.workplace.prepare(JOB, 1)
        self.work = Path(self.place.work_dir)
        self.outside = root / "outside"
        self.outside.mkdir()
        (self.outside / "x").write_bytes(CANARY)
        self.held = os.open(self.work, os.O_RDONLY | os.O_DIRECTORY)

    @contextmanager
    def flipping(self, program: str) -> Iterator[None]:
        prepare, loop = program.split("while True:")
        source = f"{PREFACE}{prepare}print(flush=True)\nwhile True:{loop}"
        flipper = subprocess.Popen(
            [sys.executable, "-c", source, str(self.work), str(self.outside)],
            stdout=subprocess.PIPE,
        )
        try:
            assert flipper.stdout is not None
            flipper.stdout.readline()
            yield
            assert flipper.poll() is None, "the flipper has stopped by itself"
        finally:
            flipper.kill()
            flipper.communicate()


@pytest.fixture
def race(request: pytest.FixtureRequest) -> str:
    """The name of the race; one of its own when the test is not about all of them."""
    name: str = getattr(request, "param", "")
    return name


@pytest.fixture
def field(tmp_path: Path, race: str) -> Iterator[Field]:
    field = Field(tmp_path, SETTLE_S.get(race, 0.0))
    yield field
    os.close(field.held)


every_race = pytest.mark.parametrize("race", FLIPPERS, indirect=True)


def read_naively(path: Path) -> bytes:
    """Check the path, then open it: what `O_NOFOLLOW` on the last name alone would still do."""
    seen = path.lstat()
    if not S_ISREG(seen.st_mode) or seen.st_nlink != 1:
        return b""
    return path.read_bytes()


def read_safely(root: int, settle_s: float) -> bytes:
    """Read twice, as two files of one folder are: the second time below what is held."""
    origin = origin_of(root)
    with Folders(root) as folders:
        with opened_file(folders.enter(("d",)), "x", origin, settle_s) as (fd, _):
            first = os.read(fd, 100)
        with opened_file(folders.enter(("d",)), "x", origin, settle_s) as (fd, _):
            second = os.read(fd, 100)
    return max(first, second)  # a canary is greater than anything honest, by its letters


def tally(least: int, most: int, read: Callable[[], bytes], wanted: set[bytes]) -> dict[bytes, int]:
    """Count what ``read`` returns, ``least`` times or until everything wanted was seen."""
    seen: dict[bytes, int] = {}
    for number in range(most):
        if number >= least and wanted <= seen.keys():
            break
        try:
            content = read()
        except (Unsafe, OSError) as error:
            content = type(error).__name__.encode()
        seen[content] = seen.get(content, 0) + 1
    return seen


@every_race
def test_no_secret_is_read_in_a_race_that_a_naive_reader_loses(field: Field, race: str) -> None:
    with field.flipping(FLIPPERS[race]):
        safe = tally(TRIES, MOST_TRIES, lambda: read_safely(field.held, 0), {HONEST, b"Unsafe"})
        naive = tally(1, MOST_TRIES, lambda: read_naively(field.work / "d" / "x"), {CANARY})
    assert naive.get(CANARY), "the positive control has not leaked"
    assert not safe.get(CANARY), "the secret was read"
    assert safe.get(HONEST), f"the flipper has never shown its honest side: {safe}"
    assert safe.get(b"Unsafe"), f"there was no race: {safe}"
    assert set(safe) <= {HONEST, b"", b"Unsafe"}


@every_race
def test_no_secret_is_staged_however_the_names_are_swapped(field: Field, race: str) -> None:
    withheld = 0
    with field.flipping(FLIPPERS[race]):
        for _ in range(ROUNDS):
            found = field.workplace.collect(field.place).found
            wanted = [*(f for f in found if str(f.path) != "d/x"), Found(RelPath(("d", "x")), 11)]
            staged = field.workplace.stage(field.place, wanted, None)
            copied = b"".join(p.read_bytes() for p in Path(field.place.staging_dir).iterdir())
            assert CANARY not in copied
            withheld += len(staged.withheld)
    assert withheld, "there was no race"


@every_race
def test_when_the_swapping_is_over_what_is_honest_comes_out(field: Field, race: str) -> None:
    with field.flipping(FLIPPERS[race]):
        tally(100, 100, lambda: read_safely(field.held, 0), set())
    (field.work / "result").write_bytes(HONEST)
    staged = field.workplace.stage(field.place, [Found(RelPath(("result",)), len(HONEST))], None)
    assert b"".join(map(staged.read, staged.tree.chunks())) == HONEST


#: The file shrinks and grows again, without end.
RESIZER = """
(work / "x").write_bytes(b"A" * 3000000)
fd = os.open(work / "x", os.O_WRONLY)
while True:
    os.ftruncate(fd, 100)
    os.pwrite(fd, b"B" * 3000000, 0)
    os.pwrite(fd, b"C" * 1000, 3000000)
    os.ftruncate(fd, 3000000)
"""


def test_a_file_that_shrinks_and_grows_has_the_decided_size_or_is_withheld(field: Field) -> None:
    withheld: list[str] = []
    naive: set[int] = set()
    wanted = [Found(RelPath(("x",)), 3_000_000)]
    with field.flipping(RESIZER):
        for _ in range(ROUNDS):
            staged = field.workplace.stage(field.place, wanted, None)
            for file in staged.tree.files:
                assert len(b"".join(map(staged.read, file.chunks))) == 3_000_000
            withheld += [w.why for w in staged.withheld]
            naive.add(len((field.work / "x").read_bytes()))
            if len(withheld) >= 50 and naive - {3_000_000}:
                break
    assert len(withheld) >= 50
    assert set(withheld) == {"changed"}
    assert naive - {3_000_000}, "the positive control has never read another size"


#: A directory of the job is swapped with a link to one outside while everything is removed.
REMOVAL_FLIPPER = """
os.mkdir(work / "plain")
os.symlink(outside, work / "link")
while True:
    for name in ("plain", "link"):
        try:
            os.rename(work / name, work / "d"); os.rename(work / "d", work / name)
        except OSError:
            pass
    for make in (lambda: os.makedirs(work / "plain/sub"),
                 lambda: (work / "plain/y").write_bytes(HONEST),
                 lambda: os.symlink(outside, work / "link")):
        try:
            make()
        except OSError:
            pass
"""


def test_nothing_outside_is_removed_while_names_are_swapped(field: Field) -> None:
    (field.outside / "sub").mkdir()
    (field.outside / "sub" / "kept").write_bytes(CANARY)
    before = sorted(str(p) for p in field.outside.rglob("*"))
    removed = 0
    with field.flipping(REMOVAL_FLIPPER):
        for _ in range(ROUNDS):
            removed += field.workplace.purge(JOB)
            field.workplace.prepare(JOB, 1)
    assert sorted(str(p) for p in field.outside.rglob("*")) == before
    assert (field.outside / "x").read_bytes() == CANARY
    assert removed > ROUNDS // 2
    assert field.workplace.purge(JOB)
